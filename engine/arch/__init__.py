"""The hardware: reads bytes of physical memory and follows the manuals."""
