"""The pages of a VM: full-size bitmaps of pending and zero pages, and how writes become bits."""
