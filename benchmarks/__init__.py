"""What fast means, measured: ``python -m benchmarks``. No part of the package, and nothing here is a timed test."""
