"""The commands of the command line, as ``engine.__main__`` dispatches them."""
