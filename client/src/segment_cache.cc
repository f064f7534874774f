// SPDX-License-Identifier: Apache-2.0
#include "client/src/segment_cache.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "shared/base/status_macros.h"

namespace stoker::client {
namespace {
constexpr uint64_t kBlockBytes = 2 << 20;
}  // namespace

ClientSegment::ClientSegment(segment::MappedSegment mapped)
    : mapped_(std::move(mapped)), populated_((mapped_.size_bytes() + kBlockBytes - 1) / kBlockBytes) {}

void ClientSegment::Populate(uint64_t offset, uint64_t size) {
  absl::MutexLock lock(&mu_);
  const uint64_t end = std::min((offset + size + kBlockBytes - 1) / kBlockBytes, uint64_t{populated_.size()});
  for (uint64_t block = offset / kBlockBytes; block < end;) {
    uint64_t last = block;
    while (last < end && !populated_[last]) populated_[last++] = true;
    if (last > block) {
      const uint64_t begin = block * kBlockBytes;
      const uint64_t bytes = std::min(last * kBlockBytes, mapped_.size_bytes()) - begin;
      (void)::madvise(const_cast<uint8_t*>(mapped_.data()) + begin, bytes, MADV_POPULATE_READ);
    }
    block = last + 1;
  }
}

std::shared_ptr<SegmentCache> SegmentCache::OfProcess() {
  static absl::Mutex mu(absl::kConstInit);
  static auto* const current = new std::weak_ptr<SegmentCache>;
  absl::MutexLock lock(&mu);
  std::shared_ptr<SegmentCache> cache = current->lock();
  if (cache == nullptr) *current = cache = std::make_shared<SegmentCache>();
  return cache;
}

absl::StatusOr<std::shared_ptr<ClientSegment>> SegmentCache::Get(const v1::SegmentDescriptor& descriptor) {
  absl::MutexLock lock(&mu_);
  std::string path = absl::StrCat(descriptor.directory(), "/", descriptor.name());
  if (const auto found = segments_.find(path); found != segments_.end()) return found->second;
  STOKER_ASSIGN_OR_RETURN(segment::MappedSegment mapped, segment::MappedSegment::MapReadOnly(descriptor));
  DropVanished();
  return segments_.emplace(std::move(path), std::make_shared<ClientSegment>(std::move(mapped))).first->second;
}

void SegmentCache::DropVanished() {
  for (auto it = segments_.begin(); it != segments_.end();) {
    it = ::access(it->first.c_str(), F_OK) != 0 ? segments_.erase(it) : std::next(it);
  }
}

}  // namespace stoker::client
