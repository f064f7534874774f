// SPDX-License-Identifier: Apache-2.0
#include "server/arena/capacity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdio.h>
#include <sys/mount.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "tests/support/shm_namespace.h"
#include "tests/support/status_matchers.h"

namespace stoker::arena {
namespace {

using ::stoker::testing::RunInShmNamespace;
using ::stoker::testing::ShmNamespaceSkipReason;
using ::stoker::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kGiB = 1 << 30;

HostMemory Host(uint64_t available, uint64_t mount_free, std::optional<uint64_t> cgroup_free = std::nullopt) {
  return {.available = available, .mount_free = mount_free, .cgroup_free = cgroup_free};
}

uint64_t AutomaticCapacity(const HostMemory& host) {
  const absl::StatusOr<ArenaSize> size = ChooseArenaSize("auto", "auto", host);
  EXPECT_OK(size);
  return size.ok() ? size->capacity_bytes : 0;
}

auto Invalid(const std::string& field) { return StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(field)); }
auto Exhausted(const std::string& a, const std::string& b) {
  return StatusIs(absl::StatusCode::kResourceExhausted, AllOf(HasSubstr(a), HasSubstr(b)));
}

TEST(ChooseArenaSize, Automatic_IsTheLeastOfQuarterMemoryHalfMountAndHalfCgroup) {
  EXPECT_EQ(AutomaticCapacity(Host(8 * kGiB, 100 * kGiB)), 2 * kGiB);
  EXPECT_EQ(AutomaticCapacity(Host(100 * kGiB, 3 * kGiB)), 3 * kGiB / 2);
  EXPECT_EQ(AutomaticCapacity(Host(100 * kGiB, 100 * kGiB, kGiB)), kGiB / 2);
  EXPECT_EQ(AutomaticCapacity(Host(1000 * kGiB, 1000 * kGiB, 1000 * kGiB)), kLargestAutomaticArena);
}

TEST(ChooseArenaSize, AutomaticAndEmpty_AreTheSame) {
  ASSERT_OK_AND_ASSIGN(const ArenaSize size, ChooseArenaSize("", "", Host(8 * kGiB, 100 * kGiB)));
  EXPECT_EQ(size.capacity_bytes, 2 * kGiB);
  EXPECT_EQ(size.segment_bytes, kGiB);
}

TEST(ChooseArenaSize, AutomaticOfAnOddNumber_IsWholePages) {
  EXPECT_EQ(AutomaticCapacity(Host(400 * kMiB + 4 * 5000, kGiB)), 100 * kMiB + 4096);
}

TEST(ChooseArenaSize, AutomaticTooSmall_IsResourceExhaustedWithARemedy) {
  EXPECT_EQ(AutomaticCapacity(Host(8 * kGiB, 2 * kSmallestArena)), kSmallestArena);
  const auto too_small = Exhausted("16.0 MiB", "--arena-bytes");
  EXPECT_THAT(ChooseArenaSize("auto", "auto", Host(8 * kGiB, 2 * kSmallestArena - 1)), too_small);
  EXPECT_THAT(ChooseArenaSize("auto", "auto", Host(0, 8 * kGiB)), too_small);
  EXPECT_THAT(ChooseArenaSize("auto", "auto", Host(8 * kGiB, 8 * kGiB, 0)), too_small);
}

TEST(ChooseArenaSize, Explicit_IsTakenAsItIsInWholePages) {
  const HostMemory host = Host(8 * kGiB, 8 * kGiB, 8 * kGiB);
  ASSERT_OK_AND_ASSIGN(const ArenaSize size, ChooseArenaSize("64MiB", "16MiB", host));
  EXPECT_EQ(size.capacity_bytes, 64 * kMiB);
  EXPECT_EQ(size.segment_bytes, 16 * kMiB);
  ASSERT_OK_AND_ASSIGN(const ArenaSize smallest, ChooseArenaSize("4097", "4097", host));
  EXPECT_EQ(smallest.capacity_bytes, 8192u);
  EXPECT_EQ(smallest.segment_bytes, 8192u);
}

TEST(ChooseArenaSize, ExplicitAboveTheMount_IsResourceExhaustedThatNamesAskedFreeAndRemedy) {
  EXPECT_OK(ChooseArenaSize("1GiB", "auto", Host(8 * kGiB, kGiB)));
  const absl::StatusOr<ArenaSize> size = ChooseArenaSize("1GiB", "auto", Host(8 * kGiB, kGiB - 1));
  EXPECT_THAT(size, Exhausted("arena of 1.00 GiB", "1024.0 MiB"));
  EXPECT_THAT(size, Exhausted("shared-memory mount", "--shm-size"));
}

TEST(ChooseArenaSize, ExplicitAbove9TenthsOfMemory_IsResourceExhausted) {
  EXPECT_OK(ChooseArenaSize("9GiB", "auto", Host(10 * kGiB, 100 * kGiB)));
  EXPECT_THAT(ChooseArenaSize("9.1GiB", "auto", Host(10 * kGiB, 100 * kGiB)),
              Exhausted("9/10 of available memory is 9.00 GiB", "--arena-bytes"));
}

TEST(ChooseArenaSize, ExplicitAbove9TenthsOfTheCgroup_IsResourceExhausted) {
  EXPECT_OK(ChooseArenaSize("9GiB", "auto", Host(100 * kGiB, 100 * kGiB, 10 * kGiB)));
  EXPECT_THAT(ChooseArenaSize("9.1GiB", "auto", Host(100 * kGiB, 100 * kGiB, 10 * kGiB)),
              Exhausted("cgroup has free is 9.00 GiB", "MemoryMax"));
}

TEST(ChooseArenaSize, NoSize_IsInvalidArgumentThatNamesTheField) {
  const HostMemory host = Host(8 * kGiB, 8 * kGiB);
  EXPECT_THAT(ChooseArenaSize("much", "auto", host), Invalid("arena_bytes: \"much\""));
  EXPECT_THAT(ChooseArenaSize("64MiB", "little", host), Invalid("segment_bytes: \"little\""));
}

TEST(ChooseArenaSize, BelowTwoPages_IsInvalidArgumentThatNamesTheField) {
  const HostMemory host = Host(8 * kGiB, 8 * kGiB);
  for (const char* text : {"0", "1", "4096"}) {
    EXPECT_THAT(ChooseArenaSize(text, "auto", host), Invalid("arena_bytes: at least 8192"));
    EXPECT_THAT(ChooseArenaSize("64MiB", text, host), Invalid("segment_bytes: at least 8192"));
  }
}

TEST(ChooseArenaSize, AutomaticSegment_IsAQuarterButAtLeastOneGiBAndAtMostTheArena) {
  const HostMemory host = Host(1000 * kGiB, 1000 * kGiB);
  const auto segment = [&](const char* arena) { return ChooseArenaSize(arena, "auto", host)->segment_bytes; };
  EXPECT_EQ(segment("64MiB"), 64 * kMiB);
  EXPECT_EQ(segment("2GiB"), kGiB);
  EXPECT_EQ(segment("16GiB"), 4 * kGiB);
}

TEST(ChooseArenaSize, SegmentAboveTheArena_IsTheArena) {
  ASSERT_OK_AND_ASSIGN(const ArenaSize size, ChooseArenaSize("64MiB", "1GiB", Host(8 * kGiB, 8 * kGiB)));
  EXPECT_EQ(size.segment_bytes, 64 * kMiB);
}

TEST(ReadHostMemory, ThisHost_HasMemory) {
  ASSERT_OK_AND_ASSIGN(const HostMemory host, ReadHostMemory("/"));
  EXPECT_GT(host.available, kMiB);
  EXPECT_LT(host.available, uint64_t{1} << 50);
}

TEST(ReadHostMemory, NoSuchDirectory_IsNotFound) {
  EXPECT_THAT(ReadHostMemory("/no/such"), StatusIs(absl::StatusCode::kNotFound, HasSubstr("/no/such")));
}

TEST(ReadHostMemory, Mount_GivesItsFreeBytes) {
  if (const std::string reason = ShmNamespaceSkipReason(); !reason.empty()) GTEST_SKIP() << reason;
  const auto result = RunInShmNamespace(4 * kMiB, [](int) {
    std::ofstream("/dev/shm/other") << std::string(kMiB, 'x');
    ASSERT_OK_AND_ASSIGN(const HostMemory host, ReadHostMemory("/dev/shm"));
    EXPECT_EQ(host.mount_free, 3 * kMiB);
  });
  EXPECT_EQ(result.exit_code, 0);
}

// A process in a cgroup of the test's making, whose files are laid over the real ones in a private mount namespace.
class ReadHostMemoryInCgroup : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string reason = ShmNamespaceSkipReason(); !reason.empty()) GTEST_SKIP() << reason;
    const auto can = RunInShmNamespace(kMiB, [](int out) { ::dprintf(out, "%d", Overlay("0::/\n")); });
    if (can.output != "1") GTEST_SKIP() << "the files of cgroups cannot be laid over here";
  }
  static void Write(const std::string& path, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(path).parent_path());
    std::ofstream(path) << text;
  }
  static void Limit(const std::string& group, const std::string& max, const std::string& current) {
    Write(absl::StrCat("/dev/shm/cgroup", group, "/memory.max"), max + "\n");
    Write(absl::StrCat("/dev/shm/cgroup", group, "/memory.current"), current + "\n");
  }
  static bool Overlay(const std::string& self) {
    Write("/dev/shm/self", self);
    std::filesystem::create_directories("/dev/shm/cgroup");
    return ::mount("/dev/shm/cgroup", "/sys/fs/cgroup", nullptr, MS_BIND, nullptr) == 0 &&
           ::mount("/dev/shm/self", "/proc/self/cgroup", nullptr, MS_BIND, nullptr) == 0;
  }
  static std::optional<uint64_t> Free() {
    const absl::StatusOr<HostMemory> host = ReadHostMemory("/");
    EXPECT_OK(host);
    return host.ok() ? host->cgroup_free : std::nullopt;
  }
  static void Expect(const std::function<void(int)>& body) { EXPECT_EQ(RunInShmNamespace(kMiB, body).exit_code, 0); }
};

TEST_F(ReadHostMemoryInCgroup, LimitOfItsOwn_IsMaxLessCurrent) {
  Expect([](int) {
    Limit("/a/b", "1000000", "400000");
    ASSERT_TRUE(Overlay("0::/a/b\n"));
    EXPECT_EQ(Free(), 600000u);
  });
}

TEST_F(ReadHostMemoryInCgroup, LimitsAbove_LeastOfAllCounts) {
  Expect([](int) {
    Limit("/a/b/c", "1000000", "0");
    Limit("/a/b", "max", "0");
    Limit("/a", "900000", "400000");
    Limit("", "800000", "100000");
    ASSERT_TRUE(Overlay("1:name=systemd:/x\n0::/a/b/c\n"));
    EXPECT_EQ(Free(), 500000u);
  });
}

TEST_F(ReadHostMemoryInCgroup, LimitOfTheRootOnly_Counts) {
  Expect([](int) {
    Limit("", "800000", "100000");
    ASSERT_TRUE(Overlay("0::/\n"));
    EXPECT_EQ(Free(), 700000u);
  });
}

TEST_F(ReadHostMemoryInCgroup, MoreUsedThanAllowed_IsZero) {
  Expect([](int) {
    Limit("/a", "1000", "2000");
    ASSERT_TRUE(Overlay("0::/a\n"));
    EXPECT_EQ(Free(), 0u);
  });
}

TEST_F(ReadHostMemoryInCgroup, NoLimitAnywhere_IsNone) {
  Expect([](int) {
    Limit("/a", "max", "5000");
    ASSERT_TRUE(Overlay("0::/a\n"));
    EXPECT_EQ(Free(), std::nullopt);
  });
}

}  // namespace
}  // namespace stoker::arena
