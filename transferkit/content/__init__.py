"""Values and interfaces: what is moved, and between what. No I/O, no threads, no third-party imports."""
