"""The program as it is installed: what desktops want to know, the bundle, and the Debian package."""
