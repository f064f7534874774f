// SPDX-License-Identifier: Apache-2.0
#include "shared/segment/segment.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <filesystem>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "shared/segment/header.h"
#include "tests/support/child_process.h"
#include "tests/support/instance_id.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace stoker::segment {
namespace {

using ::stoker::testing::ChildProcess;
using ::stoker::testing::IsOk;
using ::stoker::testing::RandomInstanceId;
using ::stoker::testing::StatusIs;
using ::stoker::testing::TempDir;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr uint64_t kSize = 1 << 16;

SegmentOptions Options(const std::string& directory) {
  return {.directory = directory, .instance_id = RandomInstanceId(), .generation = 7, .size_bytes = kSize};
}

std::string PathOf(const SegmentOptions& options) {
  return absl::StrCat(options.directory, "/stoker.", options.instance_id, ".", options.generation);
}

bool Exists(const std::string& path) { return std::filesystem::exists(std::filesystem::symlink_status(path)); }

// Both ways of making a named segment: as a Boost object in /dev/shm, and as a file elsewhere.
class SegmentIn : public ::testing::TestWithParam<bool> {
 protected:
  const TempDir dir_;
  const SegmentOptions options_ = Options(GetParam() ? kDefaultDirectory : dir_.path());
  const std::string path_ = PathOf(options_);
};
INSTANTIATE_TEST_SUITE_P(Directory, SegmentIn, ::testing::Bool(),
                         [](const ::testing::TestParamInfo<bool>& info) { return info.param ? "DevShm" : "Other"; });

TEST_P(SegmentIn, Created_HasItsNameAndDescribesItself) {
  ASSERT_OK_AND_ASSIGN(const Segment segment, Segment::Create(options_));
  EXPECT_TRUE(Exists(path_));
  EXPECT_EQ(absl::StrCat(options_.directory, "/", segment.name()), path_);
  EXPECT_EQ(segment.size_bytes(), kSize);
  EXPECT_EQ(segment.generation(), 7u);
  EXPECT_TRUE(segment.linked());
  v1::SegmentDescriptor descriptor;
  segment.Describe(&descriptor);
  EXPECT_EQ(descriptor.name(), segment.name());
  EXPECT_EQ(descriptor.directory(), options_.directory);
  EXPECT_EQ(descriptor.generation(), 7u);
  EXPECT_EQ(descriptor.size_bytes(), kSize);
}

TEST_P(SegmentIn, Created_IsReservedWholeWithTheModeAskedForWhateverTheUmask) {
  const mode_t umask = ::umask(0077);
  const absl::StatusOr<Segment> segment = Segment::Create(options_);
  ::umask(umask);
  ASSERT_OK(segment);
  struct stat info;
  ASSERT_EQ(::stat(path_.c_str(), &info), 0);
  EXPECT_EQ(static_cast<uint64_t>(info.st_size), kSize);
  EXPECT_GE(static_cast<uint64_t>(info.st_blocks) * 512, kSize);
  EXPECT_EQ(info.st_mode & 07777, 0640u);
}

TEST_P(SegmentIn, Created_HasAHeaderAndZeroes) {
  ASSERT_OK_AND_ASSIGN(const Segment segment, Segment::Create(options_));
  SegmentHeader header;
  std::memcpy(&header, segment.data(), sizeof(header));
  EXPECT_EQ(std::memcmp(segment.data(), "\x01STOKSEG", 8), 0);
  EXPECT_EQ(header.magic, kSegmentMagic);
  EXPECT_EQ(header.format_version, kFormatVersion);
  EXPECT_EQ(header.header_bytes, 4096u);
  EXPECT_EQ(header.size_bytes, kSize);
  EXPECT_EQ(header.generation, 7u);
  EXPECT_EQ(std::string(header.instance_id, 16), options_.instance_id);
  for (uint64_t i = sizeof(header); i < kSize; ++i) ASSERT_EQ(segment.data()[i], 0) << i;
}

TEST_P(SegmentIn, Descriptors_AreClosedByExec) {
  ASSERT_OK_AND_ASSIGN(const Segment segment, Segment::Create(options_));
  EXPECT_NE(::fcntl(segment.fd(), F_GETFD) & FD_CLOEXEC, 0);
}

TEST_P(SegmentIn, Destroyed_IsUnlinked) {
  { ASSERT_OK_AND_ASSIGN(const Segment segment, Segment::Create(options_)); }
  EXPECT_FALSE(Exists(path_));
}

TEST_P(SegmentIn, MovedFrom_LeavesTheNameToTheOther) {
  ASSERT_OK_AND_ASSIGN(Segment first, Segment::Create(options_));
  std::optional<Segment> moved_from(std::move(first));
  const Segment second(std::move(*moved_from));
  moved_from.reset();
  EXPECT_TRUE(Exists(path_));
  EXPECT_TRUE(second.linked());
  second.data()[kSize - 1] = 1;
}

TEST_P(SegmentIn, AssignedOver_IsUnlinked) {
  SegmentOptions other = options_;
  other.generation = 8;
  ASSERT_OK_AND_ASSIGN(Segment segment, Segment::Create(options_));
  ASSERT_OK_AND_ASSIGN(segment, Segment::Create(other));
  // `status_or_…` of the macro, which now owns the old one, lives on; its name goes with it.
  EXPECT_EQ(segment.generation(), 8u);
  EXPECT_TRUE(Exists(PathOf(other)));
}

TEST_P(SegmentIn, NameTaken_IsAnErrorAndLeavesTheFirstAlone) {
  ASSERT_OK_AND_ASSIGN(const Segment first, Segment::Create(options_));
  EXPECT_THAT(Segment::Create(options_),
              StatusIs(absl::StatusCode::kInternal, AllOf(HasSubstr(path_), HasSubstr("exists"))));
  EXPECT_TRUE(first.linked());
}

TEST_P(SegmentIn, SymbolicLinkOfThatName_IsNotFollowed) {
  const TempDir target;
  std::filesystem::create_symlink(target.File("a"), path_);
  EXPECT_THAT(Segment::Create(options_), StatusIs(absl::StatusCode::kInternal, HasSubstr("exists")));
  EXPECT_FALSE(Exists(target.File("a")));
  std::filesystem::remove(path_);
}

TEST_P(SegmentIn, NameRemoved_IsNotLinkedAndStillWritable) {
  ASSERT_OK_AND_ASSIGN(const Segment segment, Segment::Create(options_));
  ASSERT_EQ(::unlink(path_.c_str()), 0);
  EXPECT_FALSE(segment.linked());
  std::memset(segment.data() + kSegmentHeaderBytes, 1, kSize - kSegmentHeaderBytes);
}

TEST_P(SegmentIn, NameRemovedAndTakenByAnother_IsLeftToTheOther) {
  {
    ASSERT_OK_AND_ASSIGN(const Segment segment, Segment::Create(options_));
    ASSERT_EQ(::unlink(path_.c_str()), 0);
    const UniqueFd other(::open(path_.c_str(), O_CREAT | O_EXCL | O_WRONLY, 0600));
    ASSERT_TRUE(other.valid());
  }
  EXPECT_TRUE(Exists(path_));
  std::filesystem::remove(path_);
}

// Whichever descriptor is the one too many, the name must not be left behind.
TEST_P(SegmentIn, TooFewDescriptors_IsResourceExhaustedAndLeavesNothing) {
  const auto result =
      ChildProcess([&](int) {
        {  // UBSan wants a descriptor to look at an exception's vtable, the first time that one is thrown.
          const absl::StatusOr<Segment> first = Segment::Create(options_);
          EXPECT_FALSE(Segment::Create(options_).ok());
        }
        const int next = ::dup(0);
        ::close(next);
        for (int more = 0; more < 2; ++more) {
          const rlimit limit = {static_cast<rlim_t>(next + more), static_cast<rlim_t>(next + more)};
          rlimit old;
          ASSERT_EQ(::prlimit(0, RLIMIT_NOFILE, nullptr, &old), 0);
          const rlimit lower = {limit.rlim_cur, old.rlim_max};
          ASSERT_EQ(::prlimit(0, RLIMIT_NOFILE, &lower, nullptr), 0);
          const absl::Status status = Segment::Create(options_).status();
          ASSERT_EQ(::prlimit(0, RLIMIT_NOFILE, &old, nullptr), 0);
          // Not before: UBSan wants a descriptor to look at a matcher's vtable.
          EXPECT_THAT(status, StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("Too many open files"))) << more;
          EXPECT_FALSE(Exists(path_)) << more;
        }
      }).Wait();
  EXPECT_EQ(result.exit_code, 0);
}

TEST_P(SegmentIn, ModeThatForbidsTheOwner_LeavesNothing) {
  std::filesystem::permissions(dir_.path(), std::filesystem::perms::all);
  SegmentOptions options = options_;
  options.mode = 0;
  const auto result =
      ChildProcess([&](int) {
        if (::geteuid() == 0) {
          ASSERT_EQ(::setresuid(65534, 65534, 65534), 0);
        }
        EXPECT_THAT(Segment::Create(options), StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr(path_)));
      }).Wait();
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_FALSE(Exists(path_));
}

TEST(Segment, DirectoryNotWritable_IsPermissionDeniedThatNamesIt) {
  const TempDir dir;
  std::filesystem::permissions(dir.path(), std::filesystem::perms::owner_read | std::filesystem::perms::owner_exec |
                                               std::filesystem::perms::others_exec);
  const SegmentOptions options = Options(dir.path());
  const auto result =
      ChildProcess([&](int) {
        if (::geteuid() == 0) {
          ASSERT_EQ(::setresuid(65534, 65534, 65534), 0);
        }
        EXPECT_THAT(Segment::Create(options), StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr(dir.path())));
      }).Wait();
  EXPECT_EQ(result.exit_code, 0);
}

TEST(Segment, NoSuchDirectory_IsNotFound) {
  const TempDir dir;
  EXPECT_THAT(Segment::Create(Options(dir.File("none"))),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr(dir.File("none"))));
}

TEST(Segment, BadSize_IsInvalidArgumentThatNamesIt) {
  for (const uint64_t size : {0, 4096, 4097, 12289}) {
    SegmentOptions options = Options("");
    options.size_bytes = size;
    EXPECT_THAT(Segment::Create(options),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(absl::StrCat("size ", size))));
  }
}

TEST(Segment, BadInstanceId_IsInvalidArgumentThatQuotesIt) {
  const TempDir dir;
  for (const std::string id : {"", "0123456789abcde", "0123456789abcdef0", "0123456789ABCDEF", "0123456789abcdeg",
                               "../0123456789abc", "0123456789abcd/e"}) {
    SegmentOptions options = Options(dir.path());
    options.instance_id = id;
    EXPECT_THAT(Segment::Create(options),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(absl::StrCat("\"", id, "\""))));
  }
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
}

TEST(Segment, WithoutADirectory_HasNoNameAndCanBeWrittenThroughItsDescriptor) {
  ASSERT_OK_AND_ASSIGN(const Segment segment, Segment::Create(Options("")));
  EXPECT_EQ(segment.name(), "");
  EXPECT_TRUE(segment.linked());
  v1::SegmentDescriptor descriptor;
  segment.Describe(&descriptor);
  EXPECT_EQ(descriptor.name(), "");
  EXPECT_EQ(descriptor.size_bytes(), kSize);
  ASSERT_OK_AND_ASSIGN(MappedSegment worker, MappedSegment::MapReadWrite(UniqueFd(::dup(segment.fd())), kSize));
  worker.mutable_data()[kSize - 1] = 9;
  EXPECT_EQ(segment.data()[kSize - 1], 9);
}

TEST(Segment, Prefaulted_KeepsItsBytes) {
  ASSERT_OK_AND_ASSIGN(Segment segment, Segment::Create(Options("")));
  segment.data()[5000] = 3;
  EXPECT_THAT(segment.Prefault(0, kSize), IsOk());
  EXPECT_THAT(segment.Prefault(kSize, 0), IsOk());
  EXPECT_EQ(segment.data()[5000], 3);
}

TEST(Segment, PrefaultOutside_IsInvalidArgument) {
  ASSERT_OK_AND_ASSIGN(Segment segment, Segment::Create(Options("")));
  EXPECT_THAT(segment.Prefault(0, kSize + 4096), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("prefault")));
  EXPECT_THAT(segment.Prefault(kSize + 4096, 0), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("prefault")));
  EXPECT_THAT(segment.Prefault(4096, UINT64_MAX - 4095),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("prefault")));
}

TEST(GetShmUsage, Directory_AddsUp) {
  ASSERT_OK_AND_ASSIGN(const ShmUsage usage, GetShmUsage(kDefaultDirectory));
  EXPECT_GT(usage.size_bytes, 0u);
  EXPECT_LE(usage.used_bytes + usage.free_bytes, usage.size_bytes);
}

TEST(GetShmUsage, NoSuchDirectory_IsNotFound) {
  EXPECT_THAT(GetShmUsage("/no/such"), StatusIs(absl::StatusCode::kNotFound, HasSubstr("/no/such")));
}

TEST(ExtentHeader, Sequence_IsReadAsWritten) {
  alignas(64) uint8_t extent[256] = {};
  EXPECT_EQ(ReadSequence(extent), 0u);
  WriteSequence(extent, 0x0102030405060708);
  EXPECT_EQ(ReadSequence(extent), 0x0102030405060708u);
  ExtentHeader header;
  std::memcpy(&header, extent, sizeof(header));
  EXPECT_EQ(header.magic, 0u);
  EXPECT_EQ(header.sequence, 0x0102030405060708u);
}

// Maps the same file twice, as daemon and client do, the second time read-only.
class SequenceTest : public ::testing::Test {
 protected:
  SequenceTest() : segment_(*Segment::Create(Options(kDefaultDirectory))) {
    segment_.Describe(&descriptor_);
    mapped_.emplace(*MappedSegment::MapReadOnly(descriptor_));
  }
  uint8_t* writable() { return segment_.data() + kSegmentHeaderBytes; }
  const uint8_t* read_only() const { return mapped_->data() + kSegmentHeaderBytes; }

  Segment segment_;
  v1::SegmentDescriptor descriptor_;
  std::optional<MappedSegment> mapped_;
};

TEST_F(SequenceTest, Seal_WakesWhoWaitsThroughAReadOnlyMapping) {
  std::vector<std::thread> waiters;
  std::atomic<int> awake = 0;
  for (int i = 0; i < 3; ++i) {
    waiters.emplace_back([&] {
      while (ReadSequence(read_only()) == 0) AwaitSequence(read_only(), absl::Seconds(100));
      ++awake;
    });
  }
  absl::SleepFor(absl::Milliseconds(20));
  EXPECT_EQ(awake, 0);
  SealExtent(writable(), 7);
  for (std::thread& waiter : waiters) waiter.join();
  EXPECT_EQ(ReadSequence(read_only()), 7u);
}

TEST_F(SequenceTest, Await_OfWhatIsThere_OrForNoTime_ReturnsAtOnce) {
  AwaitSequence(read_only(), absl::ZeroDuration());
  AwaitSequence(read_only(), absl::Seconds(-1));
  SealExtent(writable(), 7);
  AwaitSequence(read_only(), absl::InfiniteDuration());
}

TEST_F(SequenceTest, Await_EndsAfterItsTime) {
  const absl::Time start = absl::Now();
  while (absl::Now() - start < absl::Milliseconds(15)) AwaitSequence(read_only(), absl::Milliseconds(15));
  EXPECT_EQ(ReadSequence(read_only()), 0u);
}

TEST_F(SequenceTest, WakeWaiters_ByWhoCanOnlyRead) {
  std::atomic<bool> stop = false;
  std::thread waiter([&] {
    while (!stop) AwaitSequence(read_only(), absl::Seconds(100));
  });
  stop = true;
  // Not once: the waiter may just be about to wait.
  std::atomic<bool> over = false;
  std::thread waker([&] {
    while (!over) WakeWaiters(read_only());
  });
  waiter.join();
  over = true;
  waker.join();
}

}  // namespace
}  // namespace stoker::segment
