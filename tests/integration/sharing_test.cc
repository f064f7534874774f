// SPDX-License-Identifier: Apache-2.0
// Several client processes on one stream: made once, the same for all, and nobody waits for the slow.
#include <memory>

#include "absl/strings/match.h"
#include "tests/integration/digest.h"
#include "tests/integration/fixture.h"
#include "tests/integration/reader.h"

namespace stoker {
namespace {

using testing::Digests;
using testing::DigestsIn;
using ::testing::HasSubstr;
using testing::IntegrationTest;
using testing::MakeSamples;
using testing::ProgramResult;
using testing::Read;
using testing::ReadEpoch;
using testing::RunningProgram;
using testing::StatusIs;

class SharingTest : public IntegrationTest {
 protected:
  std::unique_ptr<RunningProgram> StartReader(const std::vector<std::string>& options,
                                              const std::string& dataset = "shared") {
    return std::make_unique<RunningProgram>(testing::ReaderCommand(daemon().address(), dataset, options));
  }
  // What it read, once it is through; fails the test when it failed.
  Digests Finish(RunningProgram* reader, absl::string_view transport = "shm") {
    const ProgramResult result = reader->Wait();
    EXPECT_EQ(result.exit_code, 0) << result.out << result.err;
    EXPECT_TRUE(absl::StrContains(result.out, absl::StrCat("done ", transport))) << result.out;
    return DigestsIn(result.out);
  }
};

// Batches of 8 samples of 64 KiB: half a MiB each, 12 an epoch.
constexpr size_t kSamples = 96;
constexpr uint32_t kBatch = 8;
constexpr uint64_t kSteps = 12;
const std::vector<std::string> kRead = {"batch=8"};

class ManyClientsTest : public SharingTest, public ::testing::WithParamInterface<int> {};

TEST_P(ManyClientsTest, EachBatchIsMadeOnceAndTheSameForAll) {
  ASSERT_NO_FATAL_FAILURE(StartDaemon());
  IngestSamples("shared", MakeSamples(kSamples, 2, 64));
  std::vector<std::unique_ptr<RunningProgram>> readers;
  for (int i = 0; i < GetParam(); ++i) readers.push_back(StartReader(kRead));
  std::vector<Digests> read;
  for (const auto& reader : readers) read.push_back(Finish(reader.get()));
  for (const Digests& digests : read) EXPECT_EQ(digests, read[0]);
  const v1::StatusReply status = Status();
  ASSERT_EQ(status.streams_size(), 1);
  EXPECT_EQ(status.streams(0).batches_made(), kSteps);
  EXPECT_EQ(status.streams(0).batches_delivered(), kSteps * static_cast<uint64_t>(GetParam()));
  EXPECT_EQ(ReadAll(Read("shared", kBatch)), read[0]);
}

INSTANTIATE_TEST_SUITE_P(Clients, ManyClientsTest, ::testing::Values(2, 4, 8));

TEST_F(SharingTest, LateJoiner_GetsEveryBatchAndNoneIsMadeAgain) {
  ASSERT_NO_FATAL_FAILURE(StartDaemon());
  IngestSamples("shared", MakeSamples(kSamples, 2, 64));
  const auto first = StartReader({"batch=8", "delay_ms=20"});
  ASSERT_TRUE(first->WaitForOutput("batch 0:6"));
  const auto second = StartReader(kRead);
  const Digests late = Finish(second.get());
  EXPECT_EQ(late.size(), kSteps);
  EXPECT_EQ(late, Finish(first.get()));
  EXPECT_EQ(Finish(StartReader(kRead).get()), late);
  EXPECT_EQ(Status().streams(0).batches_made(), kSteps);
}

// 7 batches of 2 MiB fit into the arena, 12 make an epoch.
TEST_F(SharingTest, ClientThatHoldsItsBatch_StallsNobodyAndMissesNothing) {
  ASSERT_NO_FATAL_FAILURE(StartDaemon({.arena_bytes = "16MiB"}));
  IngestSamples("shared", MakeSamples(384, 2, 64));
  const auto slow = StartReader({"batch=32", "hold=1"});
  ASSERT_TRUE(slow->WaitForOutput("holding"));
  const Digests fast = Finish(StartReader({"batch=32", "epochs=3"}).get());
  EXPECT_EQ(fast.size(), 36u);
  slow->Say("go on");
  ASSERT_TRUE(slow->WaitForOutput("intact"));
  const Digests held_up = Finish(slow.get());
  EXPECT_EQ(held_up, Digests(fast.begin(), fast.find({1, 0})));
}

TEST_F(SharingTest, ArenaSmallerThanAnEpoch_EverybodyGetsEverything) {
  ASSERT_NO_FATAL_FAILURE(StartDaemon({.arena_bytes = "16MiB"}));
  IngestSamples("shared", MakeSamples(384, 2, 64));
  std::vector<std::unique_ptr<RunningProgram>> readers;
  for (const char* delay : {"delay_ms=0", "delay_ms=5", "delay_ms=23"}) {
    readers.push_back(StartReader({"batch=32", "seed=3", "epochs=2", delay}));
  }
  std::vector<Digests> read;
  for (const auto& reader : readers) read.push_back(Finish(reader.get()));
  for (const Digests& digests : read) EXPECT_EQ(digests, read[0]);
  EXPECT_EQ(read[0].size(), 24u);
  const v1::StatusReply status = Status();
  EXPECT_GT(status.arena().evictions(), 0u);
  EXPECT_LE(status.arena().used_bytes(), status.arena().capacity_bytes());
}

// Such as those of who validates between two steps of training. Without what is given back the third loader takes the
// last room.
TEST_F(SharingTest, ReadersThatNobodyAsks_LeaveWhatTheyReadAheadToOthers) {
  ASSERT_NO_FATAL_FAILURE(StartDaemon({.arena_bytes = "16MiB"}));
  IngestSamples("shared", MakeSamples(384, 2, 64));
  LoaderOptions options = Read("shared", 32, /*epochs=*/2);
  options.plan.set_shuffle(true);
  std::vector<Loader> idle;
  std::optional<Batch> held[3];
  for (std::optional<Batch>& batch : held) {
    options.plan.set_seed(idle.size());
    ASSERT_OK_AND_ASSIGN(Loader loader, client().Open(options));
    idle.push_back(std::move(loader));
    ASSERT_OK_AND_ASSIGN(batch, idle.back().Next(absl::Seconds(60)));
  }
  options.plan.set_seed(4);
  EXPECT_EQ(ReadAll(options).size(), 12u);
  for (std::optional<Batch>& batch : held) {
    EXPECT_OK(batch->Check());
    batch.reset();
  }
  for (Loader& loader : idle) {
    EXPECT_EQ(ReadEpoch(&loader).size(), 11u) << "where it was";
    loader.Close();
  }
}

// As who writes `for batch in loader` does: a batch is let go when the next one is there. Room for 3 of 4 MiB.
TEST_F(SharingTest, MoreReadersThatKeepABatchThanRoom_AllGetEverything) {
  ASSERT_NO_FATAL_FAILURE(StartDaemon({.arena_bytes = "16MiB"}));
  IngestSamples("shared", MakeSamples(384, 2, 64));
  LoaderOptions options = Read("shared", 64, /*epochs=*/2);
  options.plan.set_shuffle(true);
  options.give_back_after = absl::Milliseconds(50);  // one thread asks all of them, one after the other
  std::vector<Loader> loaders;
  std::vector<Batch> kept(5);
  for (uint64_t seed = 0; seed < 5; ++seed) {
    options.plan.set_seed(seed);
    ASSERT_OK_AND_ASSIGN(Loader loader, client().Open(options));
    loaders.push_back(std::move(loader));
  }
  bool copied = false;
  for (int step = 0; step < 6; ++step) {
    for (size_t i = 0; i < loaders.size(); ++i) {
      ASSERT_OK_AND_ASSIGN(std::optional<Batch> batch, loaders[i].Next(absl::Seconds(60)));
      ASSERT_TRUE(batch.has_value());
      EXPECT_OK(batch->Check());
      copied = copied || batch->inline_memory();
      kept[i] = *batch;
    }
  }
  EXPECT_TRUE(copied);
  EXPECT_THAT(loaders.back().notice(), HasSubstr("are copies: the arena has room for"));
}

// As list(loader) does.
TEST_F(SharingTest, AllBatchesKept_AreTheSameBytes) {
  ASSERT_NO_FATAL_FAILURE(StartDaemon({.arena_bytes = "16MiB"}));
  IngestSamples("shared", MakeSamples(384, 2, 64));
  LoaderOptions options = Read("shared", 64, /*epochs=*/2);
  const Digests expected = ReadAll(options);
  ASSERT_OK_AND_ASSIGN(Loader loader, client().Open(options));
  std::vector<Batch> kept;
  while (kept.size() < expected.size()) {
    ASSERT_OK_AND_ASSIGN(std::optional<Batch> batch, loader.Next(absl::Seconds(60)));
    if (batch) kept.push_back(*batch);
  }
  for (const Batch& batch : kept) {
    EXPECT_OK(batch.Check());
    EXPECT_EQ(testing::DigestOf(batch), expected.at({batch.epoch(), batch.step()}));
  }
}

TEST_F(SharingTest, TwoDataSets_AreReadAtOnce) {
  ASSERT_NO_FATAL_FAILURE(StartDaemon({.arena_bytes = "16MiB"}));
  IngestSamples("one", MakeSamples(kSamples, 2, 64, /*seed=*/1));
  IngestSamples("two", MakeSamples(kSamples, 1, 80, /*seed=*/2));
  std::vector<std::unique_ptr<RunningProgram>> readers;
  for (const char* dataset : {"one", "two", "one", "two"})
    readers.push_back(StartReader({"batch=8", "epochs=2"}, dataset));
  std::vector<Digests> read;
  for (const auto& reader : readers) read.push_back(Finish(reader.get()));
  EXPECT_EQ(read[0].size(), 2 * kSteps);
  EXPECT_EQ(read[0], read[2]);
  EXPECT_EQ(read[1], read[3]);
  EXPECT_NE(read[0], read[1]);
  EXPECT_EQ(Status().streams_size(), 2);
}

TEST_F(SharingTest, InlineTransport_BringsTheSameBytes) {
  ASSERT_NO_FATAL_FAILURE(StartDaemon());
  IngestSamples("shared", MakeSamples(kSamples, 2, 64));
  const auto mapped = StartReader({"batch=40", "transport=shm"});
  const auto sent = StartReader({"batch=40", "transport=inline"});
  const Digests digests = Finish(mapped.get());
  EXPECT_EQ(digests.size(), 3u);
  EXPECT_EQ(Finish(sent.get(), "inline"), digests);
}

TEST_F(SharingTest, AsManyBatchesHeldAsLeasesAllowed_NextSaysSo) {
  ASSERT_NO_FATAL_FAILURE(StartDaemon({.extra = {"--lease-limit", "3"}}));
  IngestSamples("shared", MakeSamples(kSamples, 1, 16));
  ASSERT_OK_AND_ASSIGN(Loader loader, client().Open(Read("shared", kBatch)));
  EXPECT_EQ(loader.info().lease_limit(), 3u);
  std::vector<Batch> held;
  for (int i = 0; i < 3; ++i) {
    ASSERT_OK_AND_ASSIGN(const std::optional<Batch> batch, loader.Next(absl::Seconds(60)));
    held.push_back(*batch);
  }
  EXPECT_THAT(loader.Next(absl::Seconds(60)), StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("3")));
  held.erase(held.begin());
  ASSERT_OK_AND_ASSIGN(const std::optional<Batch> next, loader.Next(absl::Seconds(60)));
  EXPECT_EQ(next->step(), 3u);
}

// Leases of a client that is through are its no longer.
TEST_F(SharingTest, ClientsGone_NoLeaseIsLeft) {
  ASSERT_NO_FATAL_FAILURE(StartDaemon());
  IngestSamples("shared", MakeSamples(kSamples, 2, 64));
  for (int i = 0; i < 3; ++i) Finish(StartReader(kRead).get());
  ASSERT_TRUE(testing::Eventually([&] { return Status().sessions().empty(); }));
  const v1::StatusReply status = Status();
  EXPECT_EQ(status.arena().extents().leased(), 0u);
  EXPECT_EQ(status.arena().extents().sealed(), kSteps);
}

}  // namespace
}  // namespace stoker
