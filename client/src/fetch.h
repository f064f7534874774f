// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <grpcpp/client_context.h>

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "stoker/v1/service.grpc.pb.h"

namespace stoker::client {

// Memory for an extent, from a page on. ResourceExhausted when there is none.
absl::StatusOr<std::shared_ptr<uint8_t>> AllocateExtent(uint64_t size_bytes);

// The bytes of a leased batch over the socket, in memory of our own. `size_bytes` is the extent's. DataLoss when the
// chunks are not exactly that; else the daemon's code. Blocks until done or until `context` is cancelled.
absl::StatusOr<std::shared_ptr<uint8_t>> FetchExtent(v1::Stoker::Stub& stub, const v1::FetchRequest& request,
                                                     uint64_t size_bytes, grpc::ClientContext* context);

}  // namespace stoker::client
