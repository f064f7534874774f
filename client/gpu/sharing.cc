// SPDX-License-Identifier: Apache-2.0
#include "client/gpu/sharing.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "shared/base/status_macros.h"

namespace stoker::gpu {
namespace {

// How long another session's upload is waited for before the batch is uploaded here too.
constexpr absl::Duration kPatience = absl::Seconds(1);
// For so many batches nothing is lent after others kept a place for too long: they may be slower, and would hold us up
// again. Twice as many each time.
constexpr uint64_t kFirstPause = 16;
constexpr uint64_t kLongestPause = 1024;
// Memory of others is unmapped when none of it was used for so long: their process may be gone.
constexpr absl::Duration kImportIdle = absl::Seconds(10);

}  // namespace

absl::StatusOr<std::unique_ptr<CopySharing>> CopySharing::Create(DeviceRuntime& runtime) {
  STOKER_ASSIGN_OR_RETURN(std::unique_ptr<MemoryServer> server, MemoryServer::Start());
  return std::unique_ptr<CopySharing>(new CopySharing(runtime, std::move(server)));
}

absl::Status CopySharing::SetPlace(size_t slot, void* memory, uint64_t bytes) {
  STOKER_ASSIGN_OR_RETURN(UniqueFd exported, runtime_.Export(memory));
  absl::MutexLock lock(&mu_);
  places_[slot] = absl::StrCat(server_->Add(std::move(exported)), " ", bytes);
  return absl::OkStatus();
}

// With the address goes the descriptor, which holds the memory.
void CopySharing::DropPlace(size_t slot) {
  absl::MutexLock lock(&mu_);
  const std::string address = std::exchange(places_[slot], "");
  server_->Remove(address.substr(0, address.find(' ')));
}

// ---- a batch comes

CopySharing::Copy CopySharing::Claim(const client::BatchData& batch, uint64_t bytes, size_t slot) {
  DropIdleImports();
  const std::shared_ptr<client::LeaseOwner>& owner = batch.owner();
  if (owner == nullptr || bytes == 0) return {};  // sent inline, or empty
  const bool may_offer = claims_++ >= lends_from_;
  const absl::StatusOr<client::LeaseOwner::Claimed> claimed =
      owner->Claim(batch.lease(), runtime_.info().id, may_offer, absl::Now() + kPatience);
  absl::Status status = claimed.status();
  if (status.ok() && !claimed->memory.empty()) {
    absl::StatusOr<std::shared_ptr<ImportedMemory>> memory = Map(claimed->memory, bytes);
    if (memory.ok()) return {*std::move(memory), false};
    status = memory.status();
  }
  absl::MutexLock lock(&mu_);
  if (!status.ok()) notice_ = absl::StrCat("a batch of another process was uploaded here too: ", status.message());
  if (!status.ok() || !claimed->offer) return {};
  lent_[slot] = {owner, batch.lease()};
  return {nullptr, true};
}

absl::StatusOr<std::shared_ptr<ImportedMemory>> CopySharing::Map(const std::string& address, uint64_t bytes) {
  Import& import = imports_[address];
  import.used = absl::Now();
  if (import.memory != nullptr) return import.memory;
  const std::vector<std::string> parts = absl::StrSplit(address, ' ');
  uint64_t has_bytes = 0;
  if (parts.size() != 2 || !absl::SimpleAtoi(parts[1], &has_bytes) || has_bytes < bytes) {
    return absl::DataLossError(absl::StrCat("memory \"", address, "\" is not what it must be"));
  }
  STOKER_ASSIGN_OR_RETURN(const UniqueFd memory, FetchMemory(parts[0], kPatience));
  STOKER_ASSIGN_OR_RETURN(void* const mapped, runtime_.Import(memory.get(), has_bytes));
  import.memory = std::make_shared<ImportedMemory>(&runtime_, mapped);
  return import.memory;
}

void CopySharing::DropIdleImports() {
  const absl::Time now = absl::Now();
  std::erase_if(imports_, [now](const auto& entry) {
    return entry.second.memory.use_count() <= 1 && now - entry.second.used > kImportIdle;
  });
}

void CopySharing::Uploaded(size_t slot) {
  Lent lent;
  std::string address;
  {
    absl::MutexLock lock(&mu_);
    lent = lent_.at(slot);
    address = places_.at(slot);
  }
  lent.owner->Offer(lent.claim, address);
  absl::MutexLock lock(&mu_);
  lent_.at(slot).offered = true;  // only now may it be withdrawn
}

void CopySharing::GiveUp(size_t slot) {
  Lent lent;
  {
    absl::MutexLock lock(&mu_);
    const auto found = lent_.find(slot);
    if (found == lent_.end() || std::exchange(found->second.withdrawn, true)) return;
    lent = found->second;
  }
  lent.owner->Withdraw(lent.claim);
}

// ---- a batch goes

bool CopySharing::Return(size_t slot) {
  absl::MutexLock lock(&mu_);
  const auto found = lent_.find(slot);
  if (found == lent_.end()) return false;
  found->second.returned = true;
  return true;
}

std::vector<CopySharing::Place> CopySharing::TakeBack(bool in_need) {
  std::vector<std::pair<size_t, Lent>> returned;
  {
    absl::MutexLock lock(&mu_);
    for (const auto& [slot, lent] : lent_) {
      if (lent.returned && (lent.offered || lent.withdrawn)) returned.emplace_back(slot, lent);
    }
  }
  std::vector<Place> places;
  for (const auto& [slot, lent] : returned) {
    if (!lent.withdrawn) GiveUp(slot);
    const absl::StatusOr<bool> free = lent.owner->IsFree(lent.claim);
    const bool kept = free.ok() && !*free;
    if (kept && !in_need) continue;
    if (kept) {
      pause_ = std::clamp(2 * pause_, kFirstPause, kLongestPause);
      lends_from_ = claims_ + pause_;
      in_need = false;
    }
    absl::MutexLock lock(&mu_);
    lent_.erase(slot);
    places.push_back({slot, kept || !free.ok()});
  }
  return places;
}

void CopySharing::Close() {
  std::vector<size_t> slots;
  {
    absl::MutexLock lock(&mu_);
    for (const auto& [slot, lent] : lent_) slots.push_back(slot);
  }
  for (const size_t slot : slots) GiveUp(slot);
}

size_t CopySharing::lent() const {
  absl::MutexLock lock(&mu_);
  return static_cast<size_t>(
      std::count_if(lent_.begin(), lent_.end(), [](const auto& entry) { return entry.second.returned; }));
}

std::string CopySharing::notice() const {
  absl::MutexLock lock(&mu_);
  return notice_;
}

}  // namespace stoker::gpu
