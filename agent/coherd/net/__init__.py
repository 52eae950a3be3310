"""What crosses the network (floor 2): the bridge to grpc.aio's thread and what peers are asked over it."""
