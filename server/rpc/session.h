// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <grpcpp/grpcpp.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "server/rpc/calls.h"
#include "server/rpc/core.h"
#include "server/rpc/lane.h"
#include "stoker/v1/service.grpc.pb.h"

namespace stoker::rpc {

// One Session call. gRPC's threads deliver what the client says, the event loop what it is told; neither waits for the
// other or for the client. With a lane both are done on the event loop, and the stream is left for what takes time, and
// the end. Owns itself until gRPC is done with the call; the daemon may hold it longer.
class Session : public grpc::ServerBidiReactor<v1::SessionRequest, v1::SessionReply>, public SessionPeer {
 public:
  static grpc::ServerBidiReactor<v1::SessionRequest, v1::SessionReply>* Start(Core* core, Calls* calls);

  // SessionPeer, on the event loop.
  void Send(v1::SessionReply reply) override;
  void End(const absl::Status& reason) override;
  void Attach(std::shared_ptr<Lane> lane) override;
  void Detach() override;
  bool attached() const override { return lane_ != nullptr; }
  void InOrder(uint64_t number, std::function<void()> handle) override;

 private:
  Session(Core* core, Calls* calls) : core_(core), call_(std::in_place, calls) {}

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

  void Handle();  // request_
  void HandleLane(v1::SessionRequest request);
  void SendByStream(v1::SessionReply reply);
  void Close();
  void Finish(const grpc::Status& status);
  void WriteOrFinish() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  Core* const core_;
  std::optional<Calls::InFlight> call_;  // until OnDone
  std::shared_ptr<Session> self_;        // until OnDone
  bool opened_ = false;                  // by the reading side only
  bool plans_epochs_ = false;            // a Seek has to; set before it is opened
  bool closed_ = false;                  // by the reading side only
  v1::SessionRequest request_;

  // On the event loop.
  std::shared_ptr<Lane> lane_;
  uint64_t next_number_ = 1;                             // of the request to be handled
  std::map<uint64_t, std::function<void()>> too_early_;  // by number

  absl::Mutex mutex_;
  uint64_t stream_replies_ ABSL_GUARDED_BY(mutex_) = 0;
  std::deque<v1::SessionReply> replies_ ABSL_GUARDED_BY(mutex_);  // the first is being written
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool finishing_ ABSL_GUARDED_BY(mutex_) = false;  // once all is written
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  grpc::Status final_status_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace stoker::rpc
