// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "shared/segment/header.h"
#include "shared/segment/segment.h"
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

class MappedSegmentTest : public ::testing::Test {
 protected:
  void SetUp() override {
    absl::StatusOr<Segment> segment =
        Segment::Create({.directory = dir_.path(), .instance_id = RandomInstanceId(), .size_bytes = kSize});
    ASSERT_OK(segment);
    segment_.emplace(std::move(*segment));
    segment_->Describe(&descriptor_);
    path_ = absl::StrCat(dir_.path(), "/", segment_->name());
  }
  SegmentHeader& header() { return *reinterpret_cast<SegmentHeader*>(segment_->data()); }
  absl::StatusOr<MappedSegment> MapReadWrite() {
    return MappedSegment::MapReadWrite(UniqueFd(::dup(segment_->fd())), kSize);
  }

  const TempDir dir_;
  std::optional<Segment> segment_;
  v1::SegmentDescriptor descriptor_;
  std::string path_;
};

TEST_F(MappedSegmentTest, ByName_SeesWhatTheDaemonWrites) {
  ASSERT_OK_AND_ASSIGN(const MappedSegment mapped, MappedSegment::MapReadOnly(descriptor_));
  EXPECT_EQ(mapped.size_bytes(), kSize);
  segment_->data()[kSize - 1] = 42;
  EXPECT_EQ(mapped.data()[kSize - 1], 42);
}

TEST_F(MappedSegmentTest, ByNameInDevShm_SeesWhatTheDaemonWrites) {
  ASSERT_OK_AND_ASSIGN(const Segment segment,
                       Segment::Create({.instance_id = RandomInstanceId(), .size_bytes = kSize}));
  v1::SegmentDescriptor descriptor;
  segment.Describe(&descriptor);
  ASSERT_OK_AND_ASSIGN(const MappedSegment mapped, MappedSegment::MapReadOnly(descriptor));
  segment.data()[kSize - 1] = 42;
  EXPECT_EQ(mapped.data()[kSize - 1], 42);
}

TEST_F(MappedSegmentTest, DaemonGone_KeepsTheBytes) {
  segment_->data()[5000] = 42;
  ASSERT_OK_AND_ASSIGN(const MappedSegment mapped, MappedSegment::MapReadOnly(descriptor_));
  segment_.reset();
  EXPECT_EQ(mapped.data()[5000], 42);
}

TEST_F(MappedSegmentTest, Moved_TakesTheMappingAlong) {
  segment_->data()[5000] = 42;
  ASSERT_OK_AND_ASSIGN(MappedSegment first, MappedSegment::MapReadOnly(descriptor_));
  MappedSegment second(std::move(first));
  ASSERT_OK_AND_ASSIGN(MappedSegment third, MappedSegment::MapReadOnly(descriptor_));
  third = std::move(second);
  EXPECT_EQ(third.data()[5000], 42);
}

TEST_F(MappedSegmentTest, ReadOnly_CannotBeMadeWritable) {
  ASSERT_OK_AND_ASSIGN(const MappedSegment mapped, MappedSegment::MapReadOnly(descriptor_));
  errno = 0;
  EXPECT_EQ(::mprotect(const_cast<uint8_t*>(mapped.data()), kSize, PROT_READ | PROT_WRITE), -1);
  EXPECT_EQ(errno, EACCES);
}

TEST_F(MappedSegmentTest, NameRemoved_IsNotFound) {
  segment_.reset();
  EXPECT_THAT(MappedSegment::MapReadOnly(descriptor_), StatusIs(absl::StatusCode::kNotFound, HasSubstr(path_)));
}

TEST_F(MappedSegmentTest, NoSuchDirectory_IsNotFound) {
  descriptor_.set_directory(dir_.File("none"));
  EXPECT_THAT(MappedSegment::MapReadOnly(descriptor_), StatusIs(absl::StatusCode::kNotFound, HasSubstr("none")));
}

TEST_F(MappedSegmentTest, NameThatIsNoSegments_IsNotFound) {
  std::filesystem::copy_file(path_, dir_.File("other"));
  for (const std::string& name :
       {std::string(), std::string("other"), absl::StrCat("../", dir_.path(), "/", segment_->name()),
        absl::StrCat("stoker./../", segment_->name()), std::string("stoker."), std::string("stoker.config"), path_}) {
    descriptor_.set_name(name);
    EXPECT_THAT(MappedSegment::MapReadOnly(descriptor_),
                StatusIs(absl::StatusCode::kNotFound, HasSubstr("cannot be mapped")))
        << name;
  }
}

TEST_F(MappedSegmentTest, SymbolicLink_IsNotFollowed) {
  const std::string target = dir_.File("target");
  std::filesystem::rename(path_, target);
  std::filesystem::create_symlink(target, path_);
  EXPECT_THAT(MappedSegment::MapReadOnly(descriptor_), StatusIs(absl::StatusCode::kInternal, HasSubstr("symbolic")));
  std::filesystem::rename(target, path_);
}

TEST_F(MappedSegmentTest, FifoOfThatName_IsDataLossAndDoesNotBlock) {
  segment_.reset();
  ASSERT_EQ(::mkfifo(path_.c_str(), 0600), 0);
  ChildProcess child([&](int) {
    EXPECT_THAT(MappedSegment::MapReadOnly(descriptor_), StatusIs(absl::StatusCode::kDataLoss, HasSubstr(path_)));
  });
  EXPECT_EQ(child.Wait(absl::Seconds(20)).exit_code, 0);
}

TEST_F(MappedSegmentTest, NotAllowed_IsPermissionDenied) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root has another user to be";
  std::filesystem::permissions(dir_.path(), std::filesystem::perms::all);
  const auto result = ChildProcess([&](int) {
                        ASSERT_EQ(::setresuid(65534, 65534, 65534), 0);
                        ASSERT_EQ(::setresgid(65534, 65534, 65534), -1);               // and cannot go back
                        EXPECT_THAT(MappedSegment::MapReadOnly(descriptor_), IsOk());  // the group may read
                      }).Wait();
  EXPECT_EQ(result.exit_code, 0);
  ASSERT_EQ(::chmod(path_.c_str(), 0600), 0);
  const auto refused = ChildProcess([&](int) {
                         ASSERT_EQ(::setresuid(65534, 65534, 65534), 0);
                         EXPECT_THAT(MappedSegment::MapReadOnly(descriptor_),
                                     StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr(path_)));
                       }).Wait();
  EXPECT_EQ(refused.exit_code, 0);
}

TEST_F(MappedSegmentTest, OtherSizeThanDescribed_IsDataLossThatGivesBoth) {
  descriptor_.set_size_bytes(kSize + 4096);
  EXPECT_THAT(MappedSegment::MapReadOnly(descriptor_),
              StatusIs(absl::StatusCode::kDataLoss, AllOf(HasSubstr("65536 bytes"), HasSubstr("want 69632"))));
}

TEST_F(MappedSegmentTest, FileTruncatedWithItsDescription_IsDataLoss) {
  ASSERT_EQ(::truncate(path_.c_str(), 4096), 0);
  descriptor_.set_size_bytes(4096);
  EXPECT_THAT(MappedSegment::MapReadOnly(descriptor_), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("4096 bytes")));
}

TEST_F(MappedSegmentTest, WrongMagic_IsDataLoss) {
  header().magic ^= 1;
  const auto wrong = StatusIs(absl::StatusCode::kDataLoss, HasSubstr("no segment of Stoker"));
  EXPECT_THAT(MappedSegment::MapReadOnly(descriptor_), wrong);
  EXPECT_THAT(MapReadWrite(), wrong);
}

TEST_F(MappedSegmentTest, OtherFormatVersion_IsDataLossThatSaysWhy) {
  header().format_version = kFormatVersion + 1;
  const auto wrong =
      StatusIs(absl::StatusCode::kDataLoss, AllOf(HasSubstr("format 2"), HasSubstr("different versions")));
  EXPECT_THAT(MappedSegment::MapReadOnly(descriptor_), wrong);
  EXPECT_THAT(MapReadWrite(), wrong);
}

TEST_F(MappedSegmentTest, OtherSizeInTheHeader_IsDataLoss) {
  header().size_bytes = kSize / 2;
  const auto wrong = StatusIs(absl::StatusCode::kDataLoss, HasSubstr("header says 32768"));
  EXPECT_THAT(MappedSegment::MapReadOnly(descriptor_), wrong);
  EXPECT_THAT(MapReadWrite(), wrong);
}

TEST_F(MappedSegmentTest, OtherGenerationInTheHeader_IsDataLossThatGivesBoth) {
  header().generation = 9;
  EXPECT_THAT(MappedSegment::MapReadOnly(descriptor_),
              StatusIs(absl::StatusCode::kDataLoss, AllOf(HasSubstr("generation 9"), HasSubstr("want 1"))));
}

TEST_F(MappedSegmentTest, ByDescriptor_IsWritableAndKeptAfterTheDaemonIsGone) {
  ASSERT_OK_AND_ASSIGN(MappedSegment worker, MapReadWrite());
  EXPECT_EQ(worker.size_bytes(), kSize);
  worker.mutable_data()[kSize - 1] = 7;
  EXPECT_EQ(segment_->data()[kSize - 1], 7);
  segment_.reset();
  worker.mutable_data()[kSize - 2] = 8;
  EXPECT_EQ(worker.data()[kSize - 1], 7);
}

TEST_F(MappedSegmentTest, ByDescriptorOfAnotherSize_IsDataLoss) {
  EXPECT_THAT(MappedSegment::MapReadWrite(UniqueFd(::dup(segment_->fd())), 2 * kSize),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("want 131072")));
}

TEST_F(MappedSegmentTest, NoDescriptor_IsInternal) {
  EXPECT_THAT(MappedSegment::MapReadWrite(UniqueFd(), kSize),
              StatusIs(absl::StatusCode::kInternal, HasSubstr("Bad file descriptor")));
}

}  // namespace
}  // namespace stoker::segment
