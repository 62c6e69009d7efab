"""Hot structures in Cython, one per module. No asyncio, logging or configuration here, and no reading of the clock."""
