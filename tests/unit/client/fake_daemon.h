// SPDX-License-Identifier: Apache-2.0
// A daemon inside the test: speaks service.proto over a Unix socket, with batches in a real segment and leases that
// really are reused. Its one data set "numbers" has batches whose every element follows from (epoch, step), and it can
// be told to fail, to stall, to lose its streams, and to restart.
#pragma once

#include <grpcpp/grpcpp.h>

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "shared/segment/segment.h"
#include "shared/tensor/layout.h"
#include "stoker/v1/service.grpc.pb.h"

namespace stoker::testing {

struct FakeDaemonOptions {
  std::string socket;
  std::string store = "store-1";
  uint64_t steps = 5;
  bool growing = false;  // as with a budget: each epoch has a step more than the one before
  uint64_t lease_limit = 8;
  uint64_t slots = 16;        // batches that there is memory for
  uint64_t may_keep = 100;    // of them, by a session's user
  uint64_t stale = 0;         // more batches of the place before that it sends when it is asked to seek
  bool shared_memory = true;  // false: batches must be fetched
};

inline constexpr int64_t kRows = 4;
inline constexpr int64_t kColumns = 3;

// The value of element `i` of tensor "x" f32 [kRows, kColumns].
inline float ExpectedValue(uint64_t epoch, uint64_t step, int64_t i) {
  return static_cast<float>(epoch * 1000 + step * 20 + static_cast<uint64_t>(i));
}

class FakeDaemon final : public v1::Stoker::Service {
 public:
  explicit FakeDaemon(FakeDaemonOptions options);
  ~FakeDaemon() override;  // the socket goes, streams break

  // Batch `step` of every epoch fails with this from now on.
  void FailStep(uint64_t step, grpc::StatusCode code, const std::string& message);
  // As long as it is on, batches go to sessions that ask for it without being sealed.
  void SetMaking(bool making);
  // What was announced becomes sealed; with another sequence, as if it were another batch, if `wrongly`.
  void Seal(bool wrongly = false);
  // Sessions that were announced batch `step` end, and it fails from now on.
  void FailAnnounced(uint64_t step, grpc::StatusCode code, const std::string& message);
  void TellRoomIsWanted();  // every session
  // No batch is sent until it is unpaused.
  void SetPaused(bool paused);
  // What sessions ask for waits until it listens again.
  void SetDeaf(bool deaf);
  // The next Seek fails its session, or breaks its stream, before it is answered.
  enum class SeekFault { kNone, kFails, kBreaks };
  void FaultSeek(SeekFault fault);
  // Fetches wait until they are cancelled.
  void SetFetchStalled(bool stalled);
  // The next Fetch is answered as by a daemon that was started since the session was opened.
  void AnswerFetchAsAnother();
  // Breaks all sessions' streams; the daemon goes on.
  void BreakStreams();
  // Another state than SERVING: streams are refused, as a daemon does that starts.
  void SetState(v1::StatusReply::State state);

  uint64_t leases() const;                // held by clients
  uint64_t announced() const;             // of them, not sealed
  std::vector<std::string> sent() const;  // "epoch:step" of each batch sent
  uint64_t sessions_opened() const;
  uint64_t advances() const;  // messages received
  uint64_t seeks() const;     // of them
  uint64_t fetches() const;
  uint64_t fetches_cancelled() const;  // while they were stalled
  v1::SessionRequest::Open last_open() const;
  bool AwaitLeases(uint64_t count) const;  // at most 10 s

 private:
  struct Client {
    grpc::ServerContext* context;
    grpc::ServerReaderWriter<v1::SessionReply, v1::SessionRequest>* stream;
    v1::SessionRequest::Open open;
    uint64_t id = 0;
    uint64_t credits = 0;
    bool ended = false;
    v1::Position next;
    std::map<uint64_t, uint64_t> leases;  // to slots
    bool announce = false;
  };

  uint64_t Steps(uint64_t epoch) const { return options_.steps + (options_.growing ? epoch : 0); }
  grpc::Status GetStatus(grpc::ServerContext*, const v1::StatusRequest*, v1::StatusReply* reply) override;
  grpc::Status WatchStatus(grpc::ServerContext*, const v1::StatusRequest*,
                           grpc::ServerWriter<v1::StatusReply>* writer) override;
  grpc::Status Ingest(grpc::ServerContext*, const v1::IngestRequest* request,
                      grpc::ServerWriter<v1::IngestEvent>* writer) override;
  grpc::Status ListDatasets(grpc::ServerContext*, const v1::ListDatasetsRequest*,
                            v1::ListDatasetsReply* reply) override;
  grpc::Status DropDataset(grpc::ServerContext*, const v1::DropDatasetRequest* request,
                           v1::DropDatasetReply* reply) override;
  grpc::Status Session(grpc::ServerContext* context,
                       grpc::ServerReaderWriter<v1::SessionReply, v1::SessionRequest>* stream) override;
  grpc::Status Fetch(grpc::ServerContext* context, const v1::FetchRequest* request,
                     grpc::ServerWriter<v1::FetchChunk>* writer) override;

  void Handle(Client& client, const v1::SessionRequest& request) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void TakeBack(Client& client, const google::protobuf::RepeatedField<uint64_t>& leases)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Seek(Client& client, const v1::SessionRequest::Seek& seek) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Listen() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool Open(Client& client) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Serve(Client& client) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Fail(Client& client, grpc::StatusCode code, const std::string& message) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void SendBatch(Client& client, uint64_t slot) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  uint8_t* Slot(uint64_t slot) const;

  const FakeDaemonOptions options_;
  std::string instance_;
  tensor::Layout layout_;
  std::unique_ptr<segment::Segment> segment_;

  mutable absl::Mutex mu_;
  std::set<Client*> clients_ ABSL_GUARDED_BY(mu_);
  std::set<uint64_t> free_slots_ ABSL_GUARDED_BY(mu_);
  std::map<uint64_t, std::pair<grpc::StatusCode, std::string>> failures_ ABSL_GUARDED_BY(mu_);
  bool making_ ABSL_GUARDED_BY(mu_) = false;
  std::map<uint64_t, std::pair<uint64_t, uint64_t>> announced_ ABSL_GUARDED_BY(mu_);  // slot -> sequence, step
  bool paused_ ABSL_GUARDED_BY(mu_) = false;
  bool deaf_ ABSL_GUARDED_BY(mu_) = false;
  SeekFault seek_fault_ ABSL_GUARDED_BY(mu_) = SeekFault::kNone;
  bool fetch_stalled_ ABSL_GUARDED_BY(mu_) = false;
  bool fetch_as_another_ ABSL_GUARDED_BY(mu_) = false;
  v1::StatusReply::State state_ ABSL_GUARDED_BY(mu_) = v1::StatusReply::SERVING;
  uint64_t next_id_ ABSL_GUARDED_BY(mu_) = 1;
  uint64_t sequence_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t sessions_opened_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t advances_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t seeks_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t fetches_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t fetches_cancelled_ ABSL_GUARDED_BY(mu_) = 0;
  std::vector<std::string> sent_ ABSL_GUARDED_BY(mu_);
  v1::SessionRequest::Open last_open_ ABSL_GUARDED_BY(mu_);
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace stoker::testing
