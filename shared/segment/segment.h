// SPDX-License-Identifier: Apache-2.0
// Segments: shared-memory objects of a size fixed for life. The daemon creates and unlinks them, workers map them
// writable through a descriptor they are handed, clients map them read-only by name. Boost.Interprocess provides the
// object and the mapping, nothing else of it is used.
//
//   auto segment = Segment::Create({.directory = "/dev/shm", .instance_id = id, .generation = 1, .size_bytes = 1 <<
//   28}); STOKER_RETURN_IF_ERROR(segment->Prefault(0, segment->size_bytes())); auto view =
//   MappedSegment::MapReadOnly(descriptor);   // in another process
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "shared/base/unique_fd.h"
#include "stoker/v1/batch.pb.h"

namespace boost::interprocess {
class mapped_region;
}

namespace stoker::segment {

inline constexpr char kDefaultDirectory[] = "/dev/shm";
inline constexpr char kNamePrefix[] = "stoker.";

struct SegmentOptions {
  std::string directory = kDefaultDirectory;  // empty: a memfd without a name, that only workers can map
  std::string instance_id;                    // 16 lower-case hex digits
  uint64_t generation = 1;                    // unique within the instance; part of the name
  uint64_t size_bytes = 0;                    // a multiple of 4096, at least two pages
  int mode = 0640;
};

// A segment that this process made. Its memory is reserved at Create, so that writing never raises SIGBUS. The
// destructor unlinks the name; processes that have it mapped keep their mapping. An exclusive flock is held as long as
// this lives, by which SweepOrphans tells the living from the dead. Thread-compatible.
class Segment {
 public:
  // ResourceExhausted with asked and free bytes when the mount is full, PermissionDenied when it may not be written,
  // Unavailable when SweepOrphans of another daemon took the new file before it was locked: try again with another
  // generation. Nothing is left behind on failure.
  static absl::StatusOr<Segment> Create(const SegmentOptions& options);

  Segment(Segment&&) noexcept;
  Segment& operator=(Segment&&) noexcept;
  ~Segment();

  // Touches the pages of [offset, offset + size), so that the first batch is written at the speed of later ones.
  // Blocks: about a second a GiB. May run on several threads for disjoint ranges.
  absl::Status Prefault(uint64_t offset, uint64_t size);

  uint8_t* data() const;
  uint64_t size_bytes() const { return size_bytes_; }
  uint64_t generation() const { return generation_; }
  const std::string& name() const { return name_; }  // empty for a memfd
  int fd() const { return fd_.get(); }               // to hand to workers
  bool linked() const;                               // false when somebody removed the name
  void Describe(v1::SegmentDescriptor* descriptor) const;

 private:
  Segment() = default;
  absl::Status CreateFile(const SegmentOptions& options);
  absl::Status Reserve();
  void Unlink();

  std::string directory_;
  std::string name_;
  uint64_t generation_ = 0;
  uint64_t size_bytes_ = 0;
  UniqueFd fd_;       // mapped, and passed to workers
  UniqueFd lock_fd_;  // another open file description, so that a worker's copy of fd_ does not hold the lock
  std::unique_ptr<boost::interprocess::mapped_region> region_;
};

// A segment that another process made. Move-only; the bytes are valid as long as this lives, also after the daemon died
// or the name was removed. Thread-compatible.
class MappedSegment {
 public:
  // Maps by name. NotFound when there is no such file here (another host, a container without the mount),
  // PermissionDenied, or DataLoss when the header or the size is not that of the descriptor. A name is never a path.
  static absl::StatusOr<MappedSegment> MapReadOnly(const v1::SegmentDescriptor& descriptor);
  // Maps a descriptor received from the daemon, pages and all. DataLoss as above.
  static absl::StatusOr<MappedSegment> MapReadWrite(UniqueFd fd, uint64_t size_bytes);

  MappedSegment(MappedSegment&&) noexcept;
  MappedSegment& operator=(MappedSegment&&) noexcept;
  ~MappedSegment();

  const uint8_t* data() const;
  uint8_t* mutable_data();  // REQUIRES: MapReadWrite
  uint64_t size_bytes() const;

 private:
  MappedSegment() = default;
  std::unique_ptr<boost::interprocess::mapped_region> region_;
};

// The file system that segments are on.
struct ShmUsage {
  uint64_t size_bytes = 0;
  uint64_t used_bytes = 0;
  uint64_t free_bytes = 0;  // to an ordinary user
};
absl::StatusOr<ShmUsage> GetShmUsage(const std::string& directory);

// Whether `name` is one that Segment::Create gives: "stoker.<16 hex digits>.<generation>".
bool IsSegmentName(absl::string_view name);

// Removes segments in `directory` that belong to this user and whose daemon is dead: whose lock nobody holds. Files of
// other names are never touched. Returns the names removed.
absl::StatusOr<std::vector<std::string>> SweepOrphans(const std::string& directory);

}  // namespace stoker::segment
