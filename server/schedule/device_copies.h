// SPDX-License-Identifier: Apache-2.0
// Which batches are in a device's memory, or on their way there, and whom that serves: of the sessions of one stream on
// one device the first that asks uploads a batch, and the others use its copy. A state machine that knows no device;
// one thread calls it.
//
// A copy:  Claimed → Offered → Withdrawn → free     (the uploader may write over it)
//             ↘───────────────────↗
//
// Rules:
//  - A copy is named by the lease that it was claimed with, and outlives it.
//  - Who claims while it is on its way waits; the uploader gives it up, or its session ends: the next one uploads.
//  - A session uses a copy from when it was told until it returns the lease that it asked with, and a copy is free when
//    it is withdrawn and none of these leases is held. Of a session that ended it is not known whether its process
//    still reads, as of one that the daemon failed: such a copy is lost, and its uploader takes other memory.
//  - When the uploader's session ends, nobody else is told of its copies. The memory stays for those who use one:
//    the device's allocations are counted by the processes that map them.
#pragma once

#include <cstdint>
#include <string>
#include <tuple>
#include <vector>

#include "absl/container/btree_set.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/schedule/types.h"

namespace stoker::schedule {

class DeviceCopies {
 public:
  // Calls Actions::Send alone.
  explicit DeviceCopies(Actions* actions) : actions_(actions) {}

  // InvalidArgument when the lease was claimed with before, or `device` is empty or too long.
  absl::Status Claim(SessionId session, StreamId stream, const Position& at, const v1::SessionRequest::Claim& claim);
  // InvalidArgument when it is not the session's copy, or was offered or withdrawn before.
  absl::Status Offer(SessionId session, const v1::SessionRequest::Offer& offer);
  absl::Status Withdraw(SessionId session, LeaseId claim);

  void LeaseReturned(LeaseId lease);
  // Returns these leases, all that the session holds. It is told nothing any more.
  void SessionClosed(SessionId session, const absl::btree_set<LeaseId>& leases);

  size_t size() const { return copies_.size(); }

 private:
  using Key = std::tuple<StreamId, Position, std::string>;  // the device last
  struct Claimant {
    SessionId session;
    LeaseId lease;
    bool may_offer;
  };
  struct Copy {
    Key key;
    SessionId uploader = 0;         // 0: its session has ended
    std::string memory;             // empty: on its way
    std::vector<Claimant> waiting;  // while it is on its way
    absl::flat_hash_set<LeaseId> users;
    bool withdrawn = false;
    bool lost = false;  // a user's session has ended
  };

  absl::StatusOr<Copy*> FindOwn(SessionId session, LeaseId claim, absl::string_view call);
  void Ask(const Key& key, const Claimant& claimant);
  void Tell(Copy* copy, const Claimant& claimant);
  void Answer(const Claimant& claimant, const std::string& memory, bool offer);
  void Retire(LeaseId claim);
  void FreeIfUnused(LeaseId claim);

  Actions* const actions_;
  absl::flat_hash_map<LeaseId, Copy> copies_;                        // by claim
  absl::flat_hash_map<Key, LeaseId> current_;                        // the claims that are not withdrawn
  absl::flat_hash_map<LeaseId, LeaseId> uses_;                       // of who waits or uses: the claim of the copy
  absl::flat_hash_map<SessionId, absl::btree_set<LeaseId>> claims_;  // of each uploader
};

}  // namespace stoker::schedule
