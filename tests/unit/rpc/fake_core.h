// SPDX-License-Identifier: Apache-2.0
// A daemon without a daemon: answers what it is told to, keeps what it was asked, and a gRPC server around it.
#pragma once

#include <grpcpp/grpcpp.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/rpc/core.h"
#include "server/rpc/service.h"
#include "stoker/v1/service.grpc.pb.h"
#include "tests/support/temp_dir.h"

namespace stoker::rpc::testing {

inline constexpr absl::Duration kPatience = absl::Seconds(60);  // for what must happen; never a bound that is measured

// Any thread.
class FakeCore : public Core {
 public:
  // What to answer; set before the server is asked.
  std::function<v1::StatusReply()> status = [] { return v1::StatusReply(); };
  std::function<absl::StatusOr<v1::IngestEvent::Done>(const v1::IngestRequest&,
                                                      const std::function<void(const v1::IngestEvent::Progress&)>&,
                                                      const std::function<bool()>&)>
      ingest;
  std::function<absl::StatusOr<std::vector<v1::DatasetInfo>>(const std::string&)> list;
  std::function<absl::StatusOr<bool>(const std::string&)> drop;
  std::function<absl::StatusOr<std::string>(const v1::FetchRequest&)> pin;  // the bytes of the batch
  using Peer = std::shared_ptr<SessionPeer>;
  std::function<void(const Peer&, const v1::SessionRequest::Open&)> on_open = [](const Peer&, const auto&) {};
  std::function<void(const Peer&, const v1::SessionRequest::Advance&)> on_advance = [](const Peer&, const auto&) {};
  std::function<void(const Peer&)> on_close = [](const Peer&) {};
  bool keep_peers = true;  // for peer()

  // What sessions did, in order: "open NAME", "advance N" (its credits), "seek N" (its epoch), "claim N", "offer N",
  // "withdraw N", "close". Once all of one is there.
  std::vector<std::string> events() const;
  bool AwaitEvents(size_t count) const;
  int CountOf(const std::string& event) const;
  bool AwaitCountOf(const std::string& event, int count) const;

  // The session that was opened for data set `name`; kept from dying until ForgetPeers.
  Peer peer(const std::string& name) const;
  // Lets go of all, and waits until each has ended; false when one never does.
  bool ForgetPeers();

  int pinned() const;  // batches that are pinned now
  bool AwaitPinned(int count) const;

  // Core
  v1::StatusReply GetStatus() override { return status(); }
  absl::StatusOr<v1::IngestEvent::Done> Ingest(const v1::IngestRequest& request,
                                               const std::function<void(const v1::IngestEvent::Progress&)>& progress,
                                               const std::function<bool()>& cancelled) override {
    return ingest(request, progress, cancelled);
  }
  absl::StatusOr<std::vector<v1::DatasetInfo>> ListDatasets(const std::string& name) override { return list(name); }
  absl::StatusOr<bool> DropDataset(const std::string& name) override { return drop(name); }
  void OpenSession(Peer peer, const v1::SessionRequest::Open& request) override;
  void HandleRequest(Peer peer, v1::SessionRequest request) override;
  void HandleOnLoop(SessionPeer* peer, const v1::SessionRequest& request) override;
  void CloseSession(Peer peer) override;
  absl::StatusOr<std::unique_ptr<PinnedBatch>> PinBatch(const v1::FetchRequest& request) override;

 private:
  class Pinned;
  void Note(std::string event);

  mutable absl::Mutex mutex_;
  std::vector<std::string> events_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, Peer> peers_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::weak_ptr<SessionPeer>> all_peers_ ABSL_GUARDED_BY(mutex_);
  int pinned_ ABSL_GUARDED_BY(mutex_) = 0;
};

// The service over a Unix socket.
class TestServer {
 public:
  explicit TestServer(Core* core);
  ~TestServer() { Shutdown(absl::ZeroDuration()); }

  std::unique_ptr<v1::Stoker::Stub> Connect() const;
  // A client whose connection is cut when *cut is called, as by the death of its process.
  std::unique_ptr<v1::Stoker::Stub> ConnectToBeCut(std::function<void()>* cut) const;
  void Shutdown(absl::Duration drain);
  Service& service() { return service_; }
  grpc::Server* server() { return server_.get(); }

 private:
  stoker::testing::TempDir dir_;
  Service service_;
  std::unique_ptr<grpc::Server> server_;
};

// One Session call as a client has it.
class SessionClient {
 public:
  explicit SessionClient(v1::Stoker::Stub* stub) : call_(stub->Session(&context_)) {}
  ~SessionClient() { context_.TryCancel(); }

  bool Open(const std::string& dataset);
  bool Advance(uint32_t credits);
  bool Seek(uint64_t epoch);
  bool Write(const v1::SessionRequest& request) { return call_->Write(request); }
  bool Read(v1::SessionReply* reply) { return call_->Read(reply); }
  void HalfClose() { call_->WritesDone(); }
  void Cancel() { context_.TryCancel(); }
  // Reads what is left and returns how the call ended.
  grpc::Status Finish();

 private:
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::SessionRequest, v1::SessionReply>> call_;
};

// A reply with number `lease`, of about `bytes` bytes.
v1::SessionReply MakeReply(uint64_t lease, size_t bytes = 0);

}  // namespace stoker::rpc::testing
