// SPDX-License-Identifier: Apache-2.0
// The scheduler's records. Only scheduler.cc and its status report touch them.
#pragma once

#include <cstdint>
#include <deque>
#include <list>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/btree_set.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/schedule/types.h"

namespace stoker::schedule {

struct Session;
struct Stream;

struct Batch {
  enum class State { kPlanned, kMaking, kSealed, kFailed };

  Stream* stream = nullptr;
  Position at;
  State state = State::kPlanned;
  uint64_t order = 0;  // of being planned: ties of urgency go to the older
  tensor::Layout layout;
  ExtentRef extent;         // kMaking, kSealed
  uint64_t sequence = 0;    // of this extent
  uint32_t parts_left = 0;  // kMaking
  uint32_t leases = 0;
  absl::Status failure;  // kMaking: of a part, while others still run; kFailed
  std::vector<Session*> wanters;
  std::vector<Session*> announced_to;  // kMaking: sessions with a lease that end if this fails

  // In Scheduler::unleased_ while kSealed without a lease.
  bool in_unleased = false;
  std::list<Batch*>::iterator unleased;
};

struct Stream {
  StreamId id = 0;
  StreamSpec spec;
  uint64_t last_steps = 0;  // of the epoch that a session last opened at or sought: for status
  absl::flat_hash_map<Position, std::unique_ptr<Batch>> batches;
  std::vector<Session*> sessions;
  bool forgotten = false;  // since its last session: what is being made or pinned is not kept either
  uint64_t made = 0;
  uint64_t delivered = 0;

  uint64_t Steps(uint64_t epoch) const { return spec.source->Steps(epoch); }
  uint64_t slot_bytes() const { return spec.source->full_batch_bytes(); }  // its extents begin at multiples of that
};

struct Session {
  SessionId id = 0;
  Stream* stream = nullptr;
  SessionSpec spec;
  Position next;  // to be delivered; step < steps unless an EndOfEpoch is due
  uint32_t credits = 0;
  uint32_t wanted = 0;                        // batches from `next` on that have this session among their wanters
  absl::btree_map<Position, Batch*> planned;  // those of the wanted that have no room yet
  absl::btree_set<LeaseId> leases;            // the oldest first
  bool announce = false;                      // batches are lent while they are being made
  // The last of the leases, from the first on whose batch is not sealed yet.
  std::deque<std::pair<LeaseId, Batch*>> announced;
  uint64_t passed_over = 0;     // batches of others that found room while this waits for it
  bool told_of_others = false;  // that wait for room
  uint64_t delivered = 0;
  absl::Time opened;

  bool EndsBefore(const Position& at) const { return spec.end_epoch != 0 && at.epoch >= spec.end_epoch; }
  bool WaitsForRoom() const { return !planned.empty() && planned.begin()->first == next; }
  // Of the first batch that it has not got, announced or not; and how many it has.
  Position waits_for() const;
  uint64_t in_hand() const { return leases.size() - announced.size(); }
  void ForgetSealed();  // of those announced, up to the first that is not
};

inline Position Session::waits_for() const { return announced.empty() ? next : announced.front().second->at; }

inline void Session::ForgetSealed() {
  while (!announced.empty() && announced.front().second->state == Batch::State::kSealed) announced.pop_front();
}

struct Lease {
  Session* session = nullptr;  // null: a pin
  Batch* batch = nullptr;
  absl::Time since;
};

struct PartState {
  Part part;
  Batch* batch = nullptr;
  int losses = 0;  // workers that died of it
};

}  // namespace stoker::schedule
