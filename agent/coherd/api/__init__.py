"""The gRPC services for applications, operators and peers (floor 4)."""
