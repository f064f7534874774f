// SPDX-License-Identifier: Apache-2.0
// A full /dev/shm, in a mount namespace of the test's own.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>

#include "shared/segment/header.h"
#include "shared/segment/segment.h"
#include "tests/support/instance_id.h"
#include "tests/support/shm_namespace.h"
#include "tests/support/status_matchers.h"

namespace stoker::segment {
namespace {

using ::stoker::testing::RandomInstanceId;
using ::stoker::testing::RunInShmNamespace;
using ::stoker::testing::ShmNamespaceSkipReason;
using ::stoker::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr uint64_t kMount = 8 << 20;

class FullShm : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string reason = ShmNamespaceSkipReason(); !reason.empty()) GTEST_SKIP() << reason;
  }
  static absl::StatusOr<Segment> Create(uint64_t size, uint64_t generation = 1) {
    static const std::string id = RandomInstanceId();
    return Segment::Create({.instance_id = id, .generation = generation, .size_bytes = size});
  }
  // Somebody else takes what there is, but `leave` bytes.
  static void Fill(uint64_t leave) {
    const absl::StatusOr<ShmUsage> usage = GetShmUsage(kDefaultDirectory);
    ASSERT_OK(usage);
    std::ofstream("/dev/shm/other") << std::string(usage->free_bytes - leave, 'x');
  }
};

TEST_F(FullShm, SegmentLargerThanTheMount_IsResourceExhaustedAndLeavesNothing) {
  const auto result = RunInShmNamespace(kMount, [](int) {
    EXPECT_THAT(Create(2 * kMount),
                StatusIs(absl::StatusCode::kResourceExhausted,
                         AllOf(HasSubstr("16.0 MiB in /dev/shm"), HasSubstr("free now"), HasSubstr("of 8.00 MiB"))));
    EXPECT_TRUE(std::filesystem::is_empty(kDefaultDirectory));
    const absl::StatusOr<ShmUsage> usage = GetShmUsage(kDefaultDirectory);
    ASSERT_OK(usage);
    EXPECT_EQ(usage->free_bytes, kMount);
  });
  EXPECT_EQ(result.exit_code, 0);
}

TEST_F(FullShm, MountFilledByOthers_IsResourceExhausted) {
  const auto result = RunInShmNamespace(kMount, [](int) {
    Fill(1 << 20);
    EXPECT_THAT(Create(2 << 20), StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("No space left")));
    ASSERT_OK_AND_ASSIGN(const Segment segment, Create(1 << 20));
    EXPECT_TRUE(std::filesystem::exists("/dev/shm/other"));
  });
  EXPECT_EQ(result.exit_code, 0);
}

TEST_F(FullShm, MountFilledAfterwards_WritingEveryByteRaisesNoSignal) {
  const auto result = RunInShmNamespace(kMount, [](int) {
    ASSERT_OK_AND_ASSIGN(Segment segment, Create(4 << 20));
    Fill(0);
    ASSERT_OK(segment.Prefault(0, segment.size_bytes()));
    std::memset(segment.data() + kSegmentHeaderBytes, 1, segment.size_bytes() - kSegmentHeaderBytes);
  });
  EXPECT_EQ(result.signal, 0);
  EXPECT_EQ(result.exit_code, 0);
}

TEST_F(FullShm, SegmentDestroyed_GivesItsBytesBack) {
  const auto result = RunInShmNamespace(kMount, [](int) {
    for (uint64_t round = 1; round <= 5; ++round) ASSERT_OK(Create(kMount, round));
    EXPECT_TRUE(std::filesystem::is_empty(kDefaultDirectory));
  });
  EXPECT_EQ(result.exit_code, 0);
}

}  // namespace
}  // namespace stoker::segment
