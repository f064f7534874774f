// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/keep_awake.h"

#include "absl/time/time.h"

namespace stoker::rpc {
namespace {

constexpr absl::Duration kInterval = absl::Milliseconds(500);

}  // namespace

KeepAwake::KeepAwake(grpc::Server* server)
    : stub_(server->InProcessChannel(grpc::ChannelArguments())), thread_([this] { Run(); }) {}

KeepAwake::~KeepAwake() {
  stop_.Notify();
  thread_.join();
}

void KeepAwake::Run() {
  const grpc::Slice nothing;
  const grpc::ByteBuffer request(&nothing, 1);
  while (!stop_.WaitForNotificationWithTimeout(kInterval)) {
    grpc::ClientContext context;
    context.TryCancel();
    grpc::ByteBuffer reply;
    absl::Notification done;
    stub_.UnaryCall(&context, "/stoker.v1.Stoker/None", grpc::StubOptions(), &request, &reply,
                    [&done](const grpc::Status&) { done.Notify(); });
    done.WaitForNotification();
  }
}

}  // namespace stoker::rpc
