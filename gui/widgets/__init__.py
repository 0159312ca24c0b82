"""Parts of views that are views of their own: pictures to move in, cells to click."""
