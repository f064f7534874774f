// SPDX-License-Identifier: Apache-2.0
// Who gets which batch, what is made next, and what goes when room is short. A state machine: events in, actions out.
// It knows no process, socket, memory or clock; one thread calls it.
//
// A batch:  Planned → Making → Sealed ⇄ Leased(k) → gone          (Planned: wanted, no room yet)
//                        ↘ Failed → gone
//
// Rules:
//  - A session wants the batches from its position on, as many as it has credits and leases left. It gets them in
//    order.
//  - A batch that somebody wants is made once, whoever wants it; sealed, it is leased to each session that waits for
//    it. To sessions that ask for it a batch is announced, that is leased already while it is being made: they need no
//    message when it is sealed. If it fails they end.
//  - Urgency of a batch: the least, over the sessions that want it, of (batches before it + leases held). The more
//    urgent is placed and made first, so a session with much in hand does not starve one with nothing; nor the other
//    way round: who waits for room while others get it becomes more urgent.
//  - Among equals goes first what a session wants that is a little behind another one in its stream. It comes up with
//    it and both share from there on; the one ahead waits for at most kCatchUpSteps batches, once. Else readers that
//    start one after the other would stay as far apart as they began, and have everything made for each of them.
//  - Past a batch that finds no room goes only what a session waits for next, not what it will want later.
//  - Sealed batches without a lease stay, for sessions that come later, until room is needed. Those no session will
//    come to go first, least recently used; then those farthest ahead of the sessions that will; then wanted ones that
//    are less urgent than what needs the room, which are planned anew. Leased ones never go. So the most urgent batch
//    always finds room that leases leave, and nobody waits for a batch that waits for him.
//  - Whether a client reads what it was lent, or keeps it while it waits for more, cannot be told. So each is told how
//    many it may keep: with so many kept by every session there is room for one batch more, and somebody goes on.
//  - Nor can be told whether a client still reads. It is told, once, when another session waits for room, and then
//    gives back what it has read ahead when nobody asks for that.
//  - A part whose worker died is made again sample by sample; a sample whose worker dies again fails its batch.
#pragma once

#include <cstdint>
#include <deque>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "server/schedule/device_copies.h"
#include "server/schedule/state.h"
#include "server/schedule/types.h"

namespace stoker::schedule {

struct SchedulerOptions {
  uint32_t lease_limit = 64;
  uint32_t session_limit = 1024;
  uint32_t parallel_parts = 1;          // parts a batch is cut into, at most: the number of workers
  uint64_t least_part_bytes = 1 << 20;  // smaller batches are cut into fewer
  uint64_t busy_part_bytes = 4 << 20;   // the same while every worker has a part: each costs messages
  uint32_t part_samples = 4096;         // a part has at most so many: it is told them in one message
};

inline constexpr uint64_t kCatchUpSteps = 64;

class Scheduler {
 public:
  Scheduler(const SchedulerOptions& options, ExtentPool* pool, Actions* actions);
  ~Scheduler();

  // ---- sessions ----

  // FAILED_PRECONDITION while draining, RESOURCE_EXHAUSTED at the session limit or when a batch, or two of them, do not
  // fit into the pool, INVALID_ARGUMENT for a position outside the plan. Sends nothing: the caller sends `Opened` first
  // and then calls Advance with the session's credits.
  absl::StatusOr<SessionId> OpenSession(const StreamSpec& stream, const SessionSpec& session, absl::Time now);
  StreamId StreamOf(SessionId session) const;

  // Returns leases, then adds credits. An error means that the client broke the protocol; the session is still there.
  absl::Status Advance(SessionId session, absl::Span<const LeaseId> release, uint32_t credits, absl::Time now);

  // From the next Advance on, batches are announced to the session. Unknown ids are ignored.
  void AnnounceTo(SessionId session);

  // Returns leases, forgets all credits, and goes on at another place, of whose epoch it gives the steps. Sends
  // nothing: the caller sends `Sought` first and then calls Advance with the new credits. INVALID_ARGUMENT for a
  // position outside the plan, or as Advance. REQUIRES: the session is open.
  absl::StatusOr<uint64_t> Seek(SessionId session, const Position& position, absl::Span<const LeaseId> release);

  // Returns all leases. No action is called for this session any more. Unknown ids are ignored.
  void CloseSession(SessionId session);

  // Ends every session with `reason`, and opens no more.
  void Drain(const absl::Status& reason);

  // ---- making ----

  // The part to be made next, if there is one. Each is answered once: by PartDone, PartLost
  // or PartReturned.
  std::optional<Part> NextPart();
  void PartDone(PartId part, const absl::Status& status, absl::Time now);
  void PartLost(PartId part, absl::string_view how, absl::Time now);  // its worker died: "killed by signal 9"
  void PartReturned(PartId part);                                     // not begun: its worker died of another
  // The pool's segments have changed: drops batches without a lease that are not reachable any more, wanted ones are
  // planned anew, and places what waits.
  void DropUnreachable();
  void SetParallelParts(uint32_t parts) { options_.parallel_parts = parts; }

  // ---- reading a batch for a client that cannot map it ----

  struct Pinned {
    LeaseId pin = 0;
    ExtentRef extent;
  };
  // A second lease of a batch that `session` holds as `lease`, so that it outlives the session. ABORTED if it does not.
  absl::StatusOr<Pinned> Pin(SessionId session, LeaseId lease, absl::Time now);
  void Unpin(LeaseId pin);

  // ---- copies in a device's memory ----

  // As DeviceCopies. InvalidArgument, too, for a lease that the session does not hold.
  absl::Status Claim(SessionId session, const v1::SessionRequest::Claim& claim);
  absl::Status Offer(SessionId session, const v1::SessionRequest::Offer& offer) {
    return copies_.Offer(session, offer);
  }
  absl::Status Withdraw(SessionId session, LeaseId claim) { return copies_.Withdraw(session, claim); }

  // ---- data sets and status ----

  bool InUse(absl::string_view store) const;  // by a session
  // Drops what is cached of it, and what is being made or pinned as soon as that ends. REQUIRES: !InUse(store)
  void Forget(absl::string_view store);
  void FillStatus(absl::Time now, v1::StatusReply* status) const;

 private:
  Stream* FindOrCreateStream(const StreamSpec& spec);
  void CloseStreamIfUnused(Stream* stream);

  // Sessions.
  absl::Status ReturnLeases(Session* session, absl::Span<const LeaseId> release);
  void UpdateWants(Session* session);
  void Want(Session* session, const Position& at);
  absl::Status CheckFits(const Batch& batch) const;
  void Unwant(Session* session, Batch* batch);
  void UnwantAll(Session* session);
  void UpdateMayKeep();
  static bool CanLend(const Session& session, const Batch& batch);
  void Deliver(Session* session, absl::Time now);
  void Lend(Session* session, Batch* batch, absl::Time now, v1::SessionReply::Ready* ready);
  void TakeAnnounced(Session* session, LeaseId lease);
  void ReturnLease(LeaseId id);
  void EndSession(Session* session, const absl::Status& reason);

  // Batches.
  struct Turn {  // of a session to have its first planned batch placed
    uint64_t urgency;
    bool catches_up;
    Session* session;
    Batch* batch;
    // As heaps have it, the most urgent is the greatest; among equals the batch that was planned first.
    bool operator<(const Turn& other) const {
      return std::tuple(urgency, !catches_up, batch->order) >
             std::tuple(other.urgency, !other.catches_up, other.batch->order);
    }
  };
  uint64_t Urgency(const Batch& batch) const;
  static bool CatchesUp(const Batch& batch);
  Turn TurnOf(Session* session) const;
  void Place();
  void PlaceAndAnnounce(absl::Time now);
  void TellOthers(const std::vector<const Session*>& waiting);
  bool PlaceOne(Batch* batch, uint64_t urgency);
  bool EvictFor(uint64_t urgency);
  void CutIntoParts(Batch* batch);
  void AddPart(Batch* batch, uint32_t first, uint32_t count, int losses);
  void DropReadyParts(Batch* batch);
  void FinishMaking(Batch* batch, absl::Time now);
  void Notify(Batch* batch, absl::Time now);
  void UpdateUnleased(Batch* batch);
  void FreeExtent(Batch* batch);
  void RemoveIfUseless(Batch* batch);

  SchedulerOptions options_;
  ExtentPool* const pool_;
  Actions* const actions_;
  absl::Status draining_;  // not OK: the reason

  uint64_t next_id_ = 1;  // of streams, sessions, leases, parts and sequences alike
  uint64_t evictions_ = 0;
  uint64_t may_keep_ = 0;  // leases, by the user of each session
  absl::flat_hash_map<StreamId, std::unique_ptr<Stream>> streams_;
  absl::flat_hash_map<std::string, Stream*> streams_by_key_;
  absl::flat_hash_map<SessionId, std::unique_ptr<Session>> sessions_;
  absl::flat_hash_map<LeaseId, Lease> leases_;
  DeviceCopies copies_;
  absl::flat_hash_map<PartId, PartState> parts_;
  std::deque<PartId> ready_parts_;  // not handed out yet
  std::list<Batch*> unleased_;      // sealed without a lease, least recently used first
};

}  // namespace stoker::schedule
