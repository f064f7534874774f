// SPDX-License-Identifier: Apache-2.0
// A scheduler with clients and workers around it that do as a test says, and a judge who sees every call that goes in
// or comes out and fails the test when a promise is broken:
//
//  - a session gets exactly the batches from its position on, in order, EndOfEpoch at its place, and nothing once it is
//    over; never more than its credits, or leases than the limit; those that are announced are sealed later with the
//    sequence that was said, or the session ends;
//  - a leased extent is neither freed nor filled; no two live extents hold the same batch; nobody writes into an extent
//    that is not being filled, and no sample is written by two at once; what is sealed was written wholly;
//  - ids and sequences are never used again;
//  - extents in states add up to what the pool has handed out;
//  - when workers have nothing to do, nobody waits for a batch for which leases leave room.
//
//   World world({.pages = {4}});
//   const SessionId a = world.Open(world.Add({.key = "a", .steps = 2}));
//   world.Advance(a, {}, 2);
//   world.MakeAll();
//   EXPECT_THAT(world.Said(a), ElementsAre("0:0", "0:1", "end 0"));
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/schedule/scheduler.h"
#include "tests/unit/schedule/fakes.h"

namespace stoker::schedule::testing {

struct WorldOptions {
  std::vector<uint64_t> pages = {64};  // of the pool's segments
  FakePool::Fit fit = FakePool::Fit::kBest;
  uint32_t lease_limit = 64;
  uint32_t session_limit = 1024;
  uint32_t parallel_parts = 1;
  uint64_t least_part_bytes = kPage;
  uint64_t busy_part_bytes = kPage;
  bool judge_waiting = true;  // the last promise, which costs the most to check
};

class World : private Actions {
 public:
  struct Client {
    StreamSpec spec;
    Position next;
    uint64_t end_epoch = 0;
    uint32_t credits = 0;
    bool started = false;      // advanced at least once
    bool announce = false;     // has asked for it
    uint64_t may_keep = 0;     // as it was told last
    bool room_wanted = false;  // as it was told
    std::vector<LeaseId> leases;
    std::set<LeaseId> stale;  // of the place before a Seek: what becomes of them is nobody's business
    std::vector<std::string> said;
    std::optional<absl::Status> ended;  // by the scheduler
    bool open = true;

    bool IsDone() const { return end_epoch != 0 && next.epoch >= end_epoch; }
  };

  explicit World(const WorldOptions& options);
  ~World() override;

  // ---- what a test does ----

  StreamSpec Add(const FakeStream& stream);
  absl::StatusOr<SessionId> TryOpen(const StreamSpec& stream, const SessionSpec& session = {});
  SessionId Open(const StreamSpec& stream, const SessionSpec& session = {});
  absl::Status TryAdvance(SessionId session, const std::vector<LeaseId>& release, uint32_t credits);
  void Advance(SessionId session, const std::vector<LeaseId>& release, uint32_t credits);
  absl::Status TrySeek(SessionId session, const Position& position, const std::vector<LeaseId>& release,
                       uint32_t credits);  // as the engine does: the new credits follow
  void Seek(SessionId session, const Position& position, const std::vector<LeaseId>& release, uint32_t credits);
  void AnnounceTo(SessionId session);
  void ReleaseAll(SessionId session, uint32_t credits) { Advance(session, client(session).leases, credits); }
  void Close(SessionId session);
  void Drain(const absl::Status& reason);
  LeaseId Pin(SessionId session, LeaseId lease);
  void Unpin(LeaseId pin);
  void Forget(const StreamSpec& stream);
  void GrowPool(uint64_t pages);
  void Pass(absl::Duration time) { now_ += time; }

  std::optional<Part> Take();
  void Finish(PartId part, const absl::Status& status = absl::OkStatus());
  void Lose(PartId part, absl::string_view how = "killed by signal 9");
  void GiveBack(PartId part);  // not begun
  // Makes one part, or all there are, and those that follow from them; returns how many.
  bool MakeOne();
  int MakeAll();

  // ---- what it sees ----

  const std::vector<std::string>& Said(SessionId session) { return client(session).said; }  // "0:0", "end 0"
  const std::vector<LeaseId>& Leases(SessionId session) { return client(session).leases; }
  bool IsSealed(LeaseId lease) const;
  absl::Status Ended(SessionId session);                   // UNKNOWN while it has not
  std::vector<std::string> Made() const { return made_; }  // "a 0:0", in the order in which filling was done
  int TimesMade(const StreamSpec& stream, const Position& at) const;
  std::vector<std::string> Cached() const;  // "a 0:0": what is sealed now, sorted
  v1::StatusReply Status() const;
  const std::vector<PartId>& in_flight() const { return in_flight_; }
  const std::vector<LeaseId>& pins() const { return pins_; }
  const std::vector<std::string>& closed_streams() const { return closed_streams_; }  // by key
  std::map<SessionId, Client>& clients() { return clients_; }
  Client& client(SessionId session);
  Scheduler& scheduler() { return scheduler_; }
  FakePool& pool() { return pool_; }

 private:
  struct Filling {
    std::string key;  // of the stream; empty until the first part tells
    Position at;
    bool sealed = false;
    bool failed = false;
    uint64_t sequence = 0;
    std::vector<bool> written;
    std::set<LeaseId> leases;
  };
  using ExtentKey = std::pair<uint32_t, uint64_t>;
  static ExtentKey KeyOf(const ExtentRef& extent) { return {extent.segment, extent.offset}; }

  // Actions.
  void Send(SessionId session, v1::SessionReply reply) override;
  void End(SessionId session, const absl::Status& reason) override;
  void BeginFilling(const ExtentRef& extent, const Position& at) override;
  void Seal(const ExtentRef& extent, uint64_t sequence) override;
  void PartsReady() override { parts_ready_ = true; }
  void StreamClosed(StreamId stream) override;

  static void Name(Filling* filling, const StreamSpec& spec);
  void SendReady(SessionId session, Client* client, const v1::SessionReply::Ready& ready);
  void BeforeFree(const ExtentRef& extent);
  void UseId(uint64_t id, const char* what);
  void ForgetLease(LeaseId lease);
  std::vector<LeaseId> TakeBack(Client* client, const std::vector<LeaseId>& release);
  void Answered(PartId part);
  void Judge();  // after every event
  void JudgeClients();
  void JudgeWaiting();
  static const FakeSource& SourceOf(const StreamSpec& spec) { return static_cast<const FakeSource&>(*spec.source); }

  const WorldOptions options_;
  FakePool pool_;
  Scheduler scheduler_;
  absl::Time now_ = absl::UnixEpoch();

  std::map<std::string, StreamSpec> specs_;
  std::map<StreamId, std::string> open_streams_;  // -> key
  std::vector<std::string> closed_streams_;
  std::map<SessionId, Client> clients_;
  std::map<ExtentKey, Filling> fillings_;
  struct Held {
    SessionId session;  // 0: a pin
    ExtentKey extent;
    Position at;
  };
  std::map<LeaseId, Held> leases_;
  std::vector<LeaseId> pins_;
  std::map<PartId, Part> parts_;
  std::vector<PartId> in_flight_;  // in the order in which they were taken
  std::set<PartId> given_back_;
  std::set<std::pair<std::string, Position>> failures_;  // batches that failed at least once
  std::vector<std::string> made_;
  std::set<uint64_t> used_ids_;
  bool parts_ready_ = false;
  bool draining_ = false;
};

// A session that has got everything up to `steps` and returned it.
SessionId Consume(World* world, const StreamSpec& stream, uint64_t steps);

}  // namespace stoker::schedule::testing
