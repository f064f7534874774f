// SPDX-License-Identifier: Apache-2.0
#include "server/schedule/device_copies.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "shared/base/status_macros.h"

namespace stoker::schedule {
namespace {

constexpr size_t kLongestText = 256;
constexpr size_t kMostCopies = 64;  // of a session, so that none makes the table grow without end

absl::Status CheckText(absl::string_view field, absl::string_view text) {
  if (!text.empty() && text.size() <= kLongestText) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, ": has ", text.size(), " bytes, and must have 1 to ", kLongestText));
}

}  // namespace

absl::Status DeviceCopies::Claim(SessionId session, StreamId stream, const Position& at,
                                 const v1::SessionRequest::Claim& claim) {
  STOKER_RETURN_IF_ERROR(CheckText("claim.device", claim.device()));
  if (copies_.contains(claim.lease()) || uses_.contains(claim.lease())) {
    return absl::InvalidArgumentError(absl::StrCat("claim: lease ", claim.lease(), " was claimed with before"));
  }
  Ask({stream, at, claim.device()}, {session, claim.lease(), claim.may_offer()});
  return absl::OkStatus();
}

void DeviceCopies::Ask(const Key& key, const Claimant& claimant) {
  if (const auto current = current_.find(key); current != current_.end()) {
    uses_[claimant.lease] = current->second;
    Copy& copy = copies_.at(current->second);
    if (copy.memory.empty()) {
      copy.waiting.push_back(claimant);
    } else {
      Tell(&copy, claimant);
    }
    return;
  }
  const bool offer = claimant.may_offer && claims_[claimant.session].size() < kMostCopies;
  if (offer) {
    Copy& copy = copies_[claimant.lease];
    copy.key = key;
    copy.uploader = claimant.session;
    current_[key] = claimant.lease;
    claims_[claimant.session].insert(claimant.lease);
  }
  Answer(claimant, "", offer);
}

void DeviceCopies::Tell(Copy* copy, const Claimant& claimant) {
  copy->users.insert(claimant.lease);
  Answer(claimant, copy->memory, false);
}

void DeviceCopies::Answer(const Claimant& claimant, const std::string& memory, bool offer) {
  v1::SessionReply reply;
  reply.mutable_claimed()->set_lease(claimant.lease);
  reply.mutable_claimed()->set_memory(memory);
  reply.mutable_claimed()->set_offer(offer);
  actions_->Send(claimant.session, std::move(reply));
}

absl::StatusOr<DeviceCopies::Copy*> DeviceCopies::FindOwn(SessionId session, LeaseId claim, absl::string_view call) {
  const auto found = copies_.find(claim);
  if (found == copies_.end() || found->second.uploader != session || found->second.withdrawn) {
    return absl::InvalidArgumentError(absl::StrCat(call, ": lease ", claim, " is no claim of this session"));
  }
  return &found->second;
}

absl::Status DeviceCopies::Offer(SessionId session, const v1::SessionRequest::Offer& offer) {
  STOKER_RETURN_IF_ERROR(CheckText("offer.memory", offer.memory()));
  STOKER_ASSIGN_OR_RETURN(Copy* const copy, FindOwn(session, offer.claim(), "offer"));
  if (!copy->memory.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("offer: claim ", offer.claim(), " was offered before"));
  }
  copy->memory = offer.memory();
  for (const Claimant& claimant : std::exchange(copy->waiting, {})) Tell(copy, claimant);
  return absl::OkStatus();
}

absl::Status DeviceCopies::Withdraw(SessionId session, LeaseId claim) {
  STOKER_RETURN_IF_ERROR(FindOwn(session, claim, "withdraw").status());
  Retire(claim);
  FreeIfUnused(claim);
  return absl::OkStatus();
}

// Nobody else is told of it; who waits for it asks anew.
void DeviceCopies::Retire(LeaseId claim) {
  Copy& copy = copies_.at(claim);
  copy.withdrawn = true;
  const Key key = copy.key;
  current_.erase(key);
  for (const Claimant& claimant : std::exchange(copy.waiting, {})) {
    uses_.erase(claimant.lease);
    Ask(key, claimant);  // `copy` may have moved
  }
}

void DeviceCopies::FreeIfUnused(LeaseId claim) {
  const auto found = copies_.find(claim);
  if (!found->second.withdrawn || !found->second.users.empty()) return;
  const SessionId uploader = found->second.uploader;
  const bool lost = found->second.lost;
  copies_.erase(found);
  if (uploader == 0) return;
  claims_.at(uploader).erase(claim);
  v1::SessionReply reply;
  reply.mutable_copy_free()->set_claim(claim);
  reply.mutable_copy_free()->set_lost(lost);
  actions_->Send(uploader, std::move(reply));
}

void DeviceCopies::LeaseReturned(LeaseId lease) {
  const auto use = uses_.find(lease);
  if (use == uses_.end()) return;
  const LeaseId claim = use->second;
  uses_.erase(use);
  Copy& copy = copies_.at(claim);
  copy.users.erase(lease);
  std::erase_if(copy.waiting, [lease](const Claimant& claimant) { return claimant.lease == lease; });
  FreeIfUnused(claim);
}

void DeviceCopies::SessionClosed(SessionId session, const absl::btree_set<LeaseId>& leases) {
  absl::btree_set<LeaseId> claims;
  if (const auto own = claims_.extract(session); !own.empty()) claims = std::move(own.mapped());
  for (const LeaseId claim : claims) copies_.at(claim).uploader = 0;
  for (const LeaseId lease : leases) {
    if (const auto use = uses_.find(lease); use != uses_.end()) {
      Copy& copy = copies_.at(use->second);
      copy.lost = copy.lost || copy.users.contains(lease);
    }
    LeaseReturned(lease);
  }
  for (const LeaseId claim : claims) {
    if (!copies_.contains(claim)) continue;  // it was withdrawn, and used by the session itself
    if (!copies_.at(claim).withdrawn) Retire(claim);
    FreeIfUnused(claim);
  }
}

}  // namespace stoker::schedule
