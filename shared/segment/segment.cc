// SPDX-License-Identifier: Apache-2.0
#include "shared/segment/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <boost/interprocess/exceptions.hpp>
#include <boost/interprocess/mapped_region.hpp>
#include <boost/interprocess/shared_memory_object.hpp>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "shared/base/posix.h"
#include "shared/base/size.h"
#include "shared/base/status_macros.h"
#include "shared/segment/header.h"

namespace stoker::segment {
namespace {

namespace bip = boost::interprocess;

// fallocate works through a segment in steps of this size, about a millisecond each. A signal makes older kernels undo
// a step, so that a periodic one could keep longer steps from ever finishing.
constexpr uint64_t kReserveStep = 4 << 20;

// Lets mapped_region map a descriptor that is not a Boost object: a memfd, or a file on another mount than /dev/shm.
class Mappable {
 public:
  explicit Mappable(int fd) : fd_(fd) {}
  bip::mapping_handle_t get_mapping_handle() const { return bip::ipcdetail::mapping_handle_from_file_handle(fd_); }
  bip::mode_t get_mode() const { return bip::read_write; }

 private:
  int fd_;
};

absl::StatusOr<std::unique_ptr<bip::mapped_region>> MapRegion(int fd, bip::mode_t mode, uint64_t size,
                                                              absl::string_view name) {
  try {
    return std::make_unique<bip::mapped_region>(Mappable(fd), mode, 0, size);
  } catch (const bip::interprocess_exception& error) {
    return ErrnoStatus(error.get_native_error(), "map segment", name);
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(absl::StrCat("map segment: ", name, ": out of memory"));
  }
}

// A new object in /dev/shm. Its descriptor is a copy of Boost's, which closes its own: to open it again by name would
// fail where a sweep was quicker, and leave it behind where `mode` does not let us.
absl::StatusOr<UniqueFd> CreateShmObject(const std::string& name, int mode) {
  try {
    const bip::shared_memory_object object(bip::create_only, name.c_str(), bip::read_write, bip::permissions(mode));
    UniqueFd fd(
        ::fcntl(bip::ipcdetail::file_handle_from_mapping_handle(object.get_mapping_handle()), F_DUPFD_CLOEXEC, 0));
    if (fd.valid()) return fd;
    const int error = errno;
    bip::shared_memory_object::remove(name.c_str());
    return ErrnoStatus(error, "open segment", name);
  } catch (const bip::interprocess_exception& error) {
    return ErrnoStatus(error.get_native_error(), "create segment", absl::StrCat(kDefaultDirectory, "/", name));
  }
}

bool IsInstanceId(absl::string_view id) {
  return id.size() == sizeof(SegmentHeader::instance_id) &&
         id.find_first_not_of("0123456789abcdef") == absl::string_view::npos;
}

absl::Status CheckHeader(const uint8_t* data, uint64_t size_bytes, absl::string_view name) {
  SegmentHeader header;
  std::memcpy(&header, data, sizeof(header));
  if (header.magic != kSegmentMagic) {
    return absl::DataLossError(absl::StrCat("map segment: ", name, ": no segment of Stoker"));
  }
  if (header.format_version != kFormatVersion) {
    return absl::DataLossError(absl::StrCat("map segment: ", name, ": format ", header.format_version, ", this is ",
                                            kFormatVersion, ": daemon and client are of different versions"));
  }
  if (header.size_bytes != size_bytes) {
    return absl::DataLossError(
        absl::StrCat("map segment: ", name, ": header says ", header.size_bytes, " bytes, want ", size_bytes));
  }
  return absl::OkStatus();
}

}  // namespace

bool IsSegmentName(absl::string_view name) {
  if (!absl::ConsumePrefix(&name, kNamePrefix) || !IsInstanceId(name.substr(0, name.find('.')))) return false;
  name.remove_prefix(sizeof(SegmentHeader::instance_id));
  uint64_t generation = 0;
  return absl::ConsumePrefix(&name, ".") && absl::SimpleAtoi(name, &generation) && name == absl::StrCat(generation);
}

absl::StatusOr<Segment> Segment::Create(const SegmentOptions& options) {
  if (options.size_bytes % kSegmentHeaderBytes != 0 || options.size_bytes < 2 * kSegmentHeaderBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("create segment: size ", options.size_bytes, ": not a multiple of 4096, or less than 8192"));
  }
  if (!IsInstanceId(options.instance_id)) {
    return absl::InvalidArgumentError(
        absl::StrCat("create segment: instance id \"", options.instance_id, "\": not 16 lower-case hex digits"));
  }
  Segment segment;
  segment.generation_ = options.generation;
  segment.size_bytes_ = options.size_bytes;
  STOKER_RETURN_IF_ERROR(segment.CreateFile(options));
  STOKER_RETURN_IF_ERROR(segment.Reserve());
  STOKER_ASSIGN_OR_RETURN(segment.region_,
                          MapRegion(segment.fd_.get(), bip::read_write, segment.size_bytes_, segment.name_));
  SegmentHeader header = {kSegmentMagic,      kFormatVersion,     kSegmentHeaderBytes,
                          options.size_bytes, options.generation, {}};
  std::memcpy(header.instance_id, options.instance_id.data(), sizeof(header.instance_id));
  std::memcpy(segment.data(), &header, sizeof(header));
  return segment;
}

absl::Status Segment::CreateFile(const SegmentOptions& options) {
  if (options.directory.empty()) {
    fd_.reset(::memfd_create("stoker", MFD_CLOEXEC));
    if (!fd_.valid()) return ErrnoStatus(errno, "create segment", "memfd");
    if (::ftruncate(fd_.get(), static_cast<off_t>(size_bytes_)) != 0) {
      return ErrnoStatus(errno, "size segment", "memfd");
    }
    return absl::OkStatus();
  }
  const std::string name = absl::StrCat(kNamePrefix, options.instance_id, ".", options.generation);
  const std::string path = absl::StrCat(options.directory, "/", name);
  if (options.directory == kDefaultDirectory) {
    STOKER_ASSIGN_OR_RETURN(fd_, CreateShmObject(name, options.mode));
  } else {
    STOKER_ASSIGN_OR_RETURN(fd_, OpenFile(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, options.mode));
  }
  directory_ = options.directory;
  name_ = name;  // from here on the destructor unlinks it
  if (::fchmod(fd_.get(), static_cast<mode_t>(options.mode)) != 0) return ErrnoStatus(errno, "chmod segment", path);
  absl::StatusOr<UniqueFd> lock_fd = OpenFile(path, O_RDONLY | O_NOFOLLOW);
  if (!lock_fd.ok() && linked()) return lock_fd.status();
  // A sweep by another daemon may have taken the file in the moment before the lock; then its name is gone.
  if (!lock_fd.ok() || ::flock(lock_fd->get(), LOCK_EX | LOCK_NB) != 0 || !linked()) {
    return absl::UnavailableError(absl::StrCat("lock segment: ", path, ": another daemon is sweeping; try again"));
  }
  lock_fd_ = *std::move(lock_fd);
  return absl::OkStatus();
}

absl::Status Segment::Reserve() {
  for (uint64_t done = 0; done < size_bytes_;) {
    const uint64_t step = std::min(kReserveStep, size_bytes_ - done);
    if (::fallocate(fd_.get(), 0, static_cast<off_t>(done), static_cast<off_t>(step)) == 0) {
      done += step;
    } else if (errno != EINTR) {
      const int error = errno;
      std::string object = absl::StrCat(FormatSize(size_bytes_), " in ", directory_.empty() ? "memory" : directory_);
      if (const auto usage = GetShmUsage(directory_.empty() ? kDefaultDirectory : directory_); usage.ok()) {
        absl::StrAppend(&object, " (reserved ", FormatSize(done), ", free now ", FormatSize(usage->free_bytes), " of ",
                        FormatSize(usage->size_bytes), ")");
      }
      return ErrnoStatus(error, "reserve segment", object);
    }
  }
  return absl::OkStatus();
}

absl::Status Segment::Prefault(uint64_t offset, uint64_t size) {
  if (offset > size_bytes_ || size > size_bytes_ - offset) return absl::InvalidArgumentError("prefault: outside");
  while (::madvise(data() + offset, size, MADV_POPULATE_WRITE) != 0) {
    if (errno == EINTR || errno == EAGAIN) continue;
    if (errno != EINVAL) return ErrnoStatus(errno, "prefault segment", name_);
    // A kernel before 5.14: touch by hand. The memory is reserved, and bytes stay what they are.
    for (uint64_t at = offset; at < offset + size; at += 4096) {
      std::atomic_ref<uint8_t>(data()[at]).fetch_or(0, std::memory_order_relaxed);
    }
    break;
  }
  return absl::OkStatus();
}

Segment::Segment(Segment&&) noexcept = default;

Segment& Segment::operator=(Segment&& other) noexcept {
  std::swap(directory_, other.directory_);
  std::swap(name_, other.name_);
  std::swap(generation_, other.generation_);
  std::swap(size_bytes_, other.size_bytes_);
  std::swap(fd_, other.fd_);
  std::swap(lock_fd_, other.lock_fd_);
  std::swap(region_, other.region_);
  return *this;
}

Segment::~Segment() {
  if (fd_.valid()) Unlink();
}

void Segment::Unlink() {
  if (name_.empty() || !linked()) return;
  if (directory_ == kDefaultDirectory) {
    bip::shared_memory_object::remove(name_.c_str());
  } else {
    ::unlink(absl::StrCat(directory_, "/", name_).c_str());
  }
}

uint8_t* Segment::data() const { return static_cast<uint8_t*>(region_->get_address()); }

bool Segment::linked() const {
  struct stat info;
  return name_.empty() || (::fstat(fd_.get(), &info) == 0 && info.st_nlink > 0);
}

void Segment::Describe(v1::SegmentDescriptor* descriptor) const {
  descriptor->set_name(name_);
  descriptor->set_directory(directory_);
  descriptor->set_generation(generation_);
  descriptor->set_size_bytes(size_bytes_);
}

absl::StatusOr<MappedSegment> MappedSegment::MapReadOnly(const v1::SegmentDescriptor& descriptor) {
  const std::string& name = descriptor.name();
  if (!IsSegmentName(name)) {
    return absl::NotFoundError(absl::StrCat("map segment: \"", name, "\" cannot be mapped"));
  }
  const std::string path = absl::StrCat(descriptor.directory(), "/", name);
  STOKER_ASSIGN_OR_RETURN(UniqueFd fd, OpenFile(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK));  // no FIFO makes us wait
  struct stat info;
  if (::fstat(fd.get(), &info) != 0) return ErrnoStatus(errno, "stat segment", path);
  if (static_cast<uint64_t>(info.st_size) != descriptor.size_bytes() || info.st_size < 2 * 4096) {
    return absl::DataLossError(
        absl::StrCat("map segment: ", path, ": ", info.st_size, " bytes, want ", descriptor.size_bytes()));
  }
  MappedSegment segment;
  STOKER_ASSIGN_OR_RETURN(segment.region_, MapRegion(fd.get(), bip::read_only, descriptor.size_bytes(), path));
  STOKER_RETURN_IF_ERROR(CheckHeader(segment.data(), descriptor.size_bytes(), path));
  SegmentHeader header;
  std::memcpy(&header, segment.data(), sizeof(header));
  if (header.generation != descriptor.generation()) {
    return absl::DataLossError(
        absl::StrCat("map segment: ", path, ": generation ", header.generation, ", want ", descriptor.generation()));
  }
  return segment;
}

absl::StatusOr<MappedSegment> MappedSegment::MapReadWrite(UniqueFd fd, uint64_t size_bytes) {
  struct stat info;
  if (::fstat(fd.get(), &info) != 0) return ErrnoStatus(errno, "stat segment", "descriptor");
  if (static_cast<uint64_t>(info.st_size) != size_bytes || size_bytes < 2 * kSegmentHeaderBytes) {
    return absl::DataLossError(absl::StrCat("map segment: ", info.st_size, " bytes, want ", size_bytes));
  }
  MappedSegment segment;
  STOKER_ASSIGN_OR_RETURN(segment.region_, MapRegion(fd.get(), bip::read_write, size_bytes, "descriptor"));
  STOKER_RETURN_IF_ERROR(CheckHeader(segment.data(), size_bytes, "descriptor"));
  // The daemon has made the pages; this only enters them into our page table. It is no error where the kernel cannot.
  (void)::madvise(segment.mutable_data(), size_bytes, MADV_POPULATE_WRITE);
  return segment;
}

MappedSegment::MappedSegment(MappedSegment&&) noexcept = default;
MappedSegment& MappedSegment::operator=(MappedSegment&&) noexcept = default;
MappedSegment::~MappedSegment() = default;

const uint8_t* MappedSegment::data() const { return static_cast<const uint8_t*>(region_->get_address()); }
uint8_t* MappedSegment::mutable_data() { return static_cast<uint8_t*>(region_->get_address()); }
uint64_t MappedSegment::size_bytes() const { return region_->get_size(); }

absl::StatusOr<ShmUsage> GetShmUsage(const std::string& directory) {
  struct statvfs info;
  if (::statvfs(directory.c_str(), &info) != 0) return ErrnoStatus(errno, "stat file system", directory);
  ShmUsage usage;
  usage.size_bytes = uint64_t{info.f_blocks} * info.f_frsize;
  usage.free_bytes = uint64_t{info.f_bavail} * info.f_frsize;
  usage.used_bytes = usage.size_bytes - uint64_t{info.f_bfree} * info.f_frsize;
  return usage;
}

}  // namespace stoker::segment
