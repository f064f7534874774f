// SPDX-License-Identifier: Apache-2.0
// Sessions with a lane and without: the same batches, wherever a reader jumps.
#include <stdio.h>
#include <sys/resource.h>

#include <random>
#include <vector>

#include "absl/strings/str_cat.h"
#include "shared/base/paths.h"
#include "tests/integration/fixture.h"

namespace stoker {
namespace {

using testing::Digests;
using testing::IntegrationTest;
using testing::MakeSamples;
using testing::Read;
using testing::ReadEpoch;

class LaneTest : public IntegrationTest {
 protected:
  // Sessions opened from here on find no lane, or find it again.
  void SetLanes(bool there) {
    const std::string lane = LanePath(daemon().address());
    const std::string away = absl::StrCat(lane, ".away");
    ASSERT_EQ(there ? ::rename(away.c_str(), lane.c_str()) : ::rename(lane.c_str(), away.c_str()), 0);
  }
  // Whether the one session there is has a lane.
  bool HasLane() {
    const v1::StatusReply status = Status();
    EXPECT_EQ(status.sessions_size(), 1);
    return status.sessions_size() == 1 && status.sessions(0).lane();
  }
};

class LanePlanTest : public LaneTest, public ::testing::WithParamInterface<bool> {};

// Crystals by budget, whose epochs have to be planned for a Seek, and series, whose have not.
TEST_P(LanePlanTest, ReaderThatJumps_GetsTheSameOnBothWays) {
  ASSERT_NO_FATAL_FAILURE(StartDaemon());
  LoaderOptions options;
  if (GetParam()) {
    std::string xyz;
    for (int i = 0; i < 40; ++i) {
      absl::StrAppend(&xyz, "1\nLattice=\"", 3 + 0.01 * i,
                      " 0 0 0 3 0 0 0 3\" Properties=species:S:1:pos:R:3\nPo 0 0 0\n");
    }
    Ingest("a", WriteData("a.extxyz", xyz));
    options.dataset = std::string("a");  // of a literal GCC 12 says that it overlaps itself (its bug 105651)
    options.recipe.mutable_graph();
    options.plan.mutable_budget()->set_nodes(3);
  } else {
    IngestSamples("a", MakeSamples(40, 1, 20));
    options = Read("a", 3);
  }
  options.plan.set_shuffle(true);
  options.epochs = 0;
  std::vector<Digests> read[2];
  for (const bool lanes : {true, false}) {
    if (!lanes) SetLanes(false);
    ASSERT_OK_AND_ASSIGN(Loader loader, client().Open(options));
    std::mt19937 random(7);
    for (int jump = 0; jump < 60; ++jump) {
      ASSERT_OK(loader.SetEpoch(random() % 5));
      for (uint64_t i = random() % 12; i > 0; --i) ASSERT_OK(loader.Next(absl::Seconds(60)));
      if (jump % 3 == 0) read[lanes].push_back(ReadEpoch(&loader));
    }
    EXPECT_EQ(HasLane(), lanes);
  }
  EXPECT_EQ(read[true], read[false]);
  SetLanes(true);
}

// A client takes two of the daemon's descriptors.
TEST_F(LaneTest, Daemon_TakesAsManyDescriptorsAsItMay) {
  rlimit before;
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  rlimit less = before;
  less.rlim_cur = 256;
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &less), 0);
  ASSERT_NO_FATAL_FAILURE(StartDaemon());
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  rlimit there;
  ASSERT_EQ(::prlimit(Status().pid(), RLIMIT_NOFILE, nullptr, &there), 0);
  EXPECT_EQ(there.rlim_cur, before.rlim_max);
}

INSTANTIATE_TEST_SUITE_P(Plans, LanePlanTest, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "ByBudget" : "BySize"; });

}  // namespace
}  // namespace stoker
