"""placeholder"""


def fan_out() -> None:
    """placeholder"""
