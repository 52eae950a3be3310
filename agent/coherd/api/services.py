"""The services by descriptor, and who may be asked what where."""

from __future__ import annotations

from coherd.v1 import admin_service_pb2, cache_service_pb2, peer_service_pb2

ADMIN = admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"]
CACHE = cache_service_pb2.DESCRIPTOR.services_by_name["CacheService"]
PEER = peer_service_pb2.DESCRIPTOR.services_by_name["PeerService"]
