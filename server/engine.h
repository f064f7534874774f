// SPDX-License-Identifier: Apache-2.0
// The daemon's inner half, all on the event loop: joins the scheduler to what it decides about - extents of the arena,
// worker processes, connected clients. Translates and carries out; the decisions are the scheduler's.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/arena/arena.h"
#include "server/batch/planned_batches.h"
#include "server/loop/event_loop.h"
#include "server/rpc/core.h"
#include "server/schedule/scheduler.h"
#include "server/workers/pool.h"
#include "stoker/v1/service.pb.h"

namespace stoker {

struct EngineOptions {
  std::string instance_id;
  std::string worker_program;  // empty: a thread of this process makes the batches
  int workers = 1;
  absl::Duration part_deadline;
  uint32_t lease_limit = 64;
  uint32_t session_limit = 1024;
  bool lanes = false;  // sessions may have one
};

class Engine : private schedule::Actions, private schedule::ExtentPool, private workers::TaskSource {
 public:
  Engine(const EngineOptions& options, loop::EventLoop* loop, arena::Arena* arena);
  ~Engine() override;

  // Starts the workers.
  void Start();
  // Ends all sessions with `reason`; new ones get it as well.
  void Drain(const absl::Status& reason) { scheduler_.Drain(reason); }

  // What a session is to read: prepared outside the loop, for that may take a while.
  struct Request {
    v1::SessionRequest::Open open;
    std::string store_dir;
    std::string recipe_digest;
    std::string plan_digest;
    std::string key;  // of the stream
    std::shared_ptr<const batch::PlannedBatches> batches;
  };
  // The batches of the stream with this key, if there is one.
  std::shared_ptr<const batch::PlannedBatches> FindBatches(const std::string& key) const;
  void OpenSession(std::shared_ptr<rpc::SessionPeer> peer, const Request& request);
  // The batches that the session reads; null when it has ended.
  std::shared_ptr<const batch::PlannedBatches> BatchesOf(rpc::SessionPeer* peer) const;
  void HandleRequest(rpc::SessionPeer* peer, const v1::SessionRequest& request);  // not Open
  // Whose lane this is to be; null when there is no such session, or the token is not its own.
  std::shared_ptr<rpc::SessionPeer> Find(const v1::LaneHello& hello) const;
  void CloseSession(rpc::SessionPeer* peer);

  struct Pinned {
    schedule::LeaseId pin;
    absl::Span<const uint8_t> bytes;
  };
  absl::StatusOr<Pinned> Pin(const v1::FetchRequest& request);
  void Unpin(schedule::LeaseId pin) { scheduler_.Unpin(pin); }

  bool StoreInUse(absl::string_view store) const { return scheduler_.InUse(store); }
  void ForgetStore(absl::string_view store) { scheduler_.Forget(store); }
  void FillStatus(v1::StatusReply* status) const;

 private:
  struct Client {
    std::shared_ptr<rpc::SessionPeer> peer;
    uint64_t fetch_token;
  };

  // schedule::Actions
  void Send(schedule::SessionId session, v1::SessionReply reply) override;
  void End(schedule::SessionId session, const absl::Status& reason) override;
  void BeginFilling(const schedule::ExtentRef& extent, const schedule::Position& at) override;
  void Seal(const schedule::ExtentRef& extent, uint64_t sequence) override;
  void PartsReady() override;
  void StreamClosed(schedule::StreamId stream) override;

  // schedule::ExtentPool
  std::optional<schedule::ExtentRef> Allocate(uint64_t size, uint64_t slot) override;
  void Free(const schedule::ExtentRef& extent) override;
  uint64_t largest_extent() const override { return arena_->largest_extent(); }
  uint64_t RoomFor(uint64_t size) const override { return arena_->RoomFor(size); }
  uint64_t capacity_bytes() const override { return arena_->capacity_bytes(); }
  void Describe(const schedule::ExtentRef& extent, v1::BatchDescriptor* batch) const override;
  bool reachable(const schedule::ExtentRef& extent) const override;

  // workers::TaskSource
  std::optional<workers::Task> NextTask() override;
  v1::ToWorker::OpenStream OpenStream(uint64_t stream) override;
  void Done(uint64_t task, const absl::Status& status) override;
  void Lost(uint64_t task, absl::string_view how) override;
  void Returned(uint64_t task) override { scheduler_.PartReturned(task); }

  void AdvanceSession(rpc::SessionPeer* peer, const v1::SessionRequest::Advance& request);
  void SeekSession(rpc::SessionPeer* peer, const v1::SessionRequest::Seek& request);
  void ShareCopy(rpc::SessionPeer* peer, const v1::SessionRequest& request);
  void EndIfWrong(schedule::SessionId id, const absl::Status& status);
  void FillOpened(schedule::SessionId id, const Request& request, uint64_t token,
                  v1::SessionReply::Opened* opened) const;
  void UnmapRetired();
  void WatchSegments();

  const EngineOptions options_;
  loop::EventLoop* const loop_;
  arena::Arena* const arena_;
  schedule::Scheduler scheduler_;
  workers::WorkerPool pool_;
  loop::EventLoop::TimerId poke_ = 0;  // 0: none is due
  loop::EventLoop::TimerId segment_check_ = 0;
  absl::flat_hash_map<schedule::SessionId, Client> clients_;
  absl::flat_hash_map<rpc::SessionPeer*, schedule::SessionId> ids_;
  struct Stream {
    std::string key;
    v1::ToWorker::OpenStream open;
    std::shared_ptr<const batch::PlannedBatches> batches;
  };
  absl::flat_hash_map<schedule::StreamId, Stream> streams_;
};

}  // namespace stoker
