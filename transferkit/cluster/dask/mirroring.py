"""placeholder"""


def mirror() -> None:
    """placeholder"""
