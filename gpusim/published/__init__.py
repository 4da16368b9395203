"""Others' published measurements and models, held against the simulator. Nothing above may import it."""
