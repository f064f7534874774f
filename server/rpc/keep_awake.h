// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <thread>

#include "absl/synchronization/notification.h"

namespace stoker::rpc {

// gRPC 1.51 runs reactors on two threads that both pause for 100 ms when a second has passed without an event for them
// (CallbackAlternativeCQ): a request that comes then waits that long. As long as this lives they have an event twice a
// second, a call that is cancelled before it begins, so one of them is always there.
class KeepAwake {
 public:
  // REQUIRES: the server has started, and is not shut down before this is gone.
  explicit KeepAwake(grpc::Server* server);
  ~KeepAwake();

 private:
  void Run();

  grpc::GenericStub stub_;
  absl::Notification stop_;
  std::thread thread_;
};

}  // namespace stoker::rpc
