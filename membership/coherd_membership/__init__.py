"""Who is in the cluster: SWIM with Lifeguard as a pure state machine. Its place; nothing is here yet."""
