// SPDX-License-Identifier: Apache-2.0
// Processes that share batches on one device, which here is memory that they map: each batch is uploaded by one of
// them, and whoever dies takes nothing from the others.
#include <cstdio>
#include <memory>

#include "absl/strings/match.h"
#include "tests/integration/fixture.h"
#include "tests/integration/reader.h"

namespace stoker {
namespace {

using testing::Digests;
using testing::DigestsIn;
using testing::IntegrationTest;
using testing::MakeSamples;
using testing::ProgramResult;
using testing::Read;
using testing::RunningProgram;

constexpr uint32_t kBatch = 8;
constexpr uint64_t kSteps = 12;

class DeviceSharingTest : public IntegrationTest {
 protected:
  void Start() {
    ASSERT_NO_FATAL_FAILURE(StartDaemon());
    IngestSamples("shared", MakeSamples(kSteps * kBatch, 2, 64));
    right_ = ReadAll(Read("shared", kBatch));
    ASSERT_EQ(right_.size(), kSteps);
  }

  std::unique_ptr<RunningProgram> StartReader(const std::vector<std::string>& options) {
    return std::make_unique<RunningProgram>(testing::DeviceReaderCommand(daemon().address(), "shared", options));
  }

  struct Report {
    int batches = 0, borrowed = 0;
  };
  // Ends with every batch of every epoch read, and right.
  Report Finish(RunningProgram* reader, uint64_t epochs) {
    const ProgramResult result = reader->Wait();
    EXPECT_EQ(result.exit_code, 0) << result.out << result.err;
    const Digests digests = DigestsIn(result.out);
    EXPECT_EQ(digests.size(), epochs * kSteps);
    for (const auto& [at, digest] : digests)
      EXPECT_EQ(digest, right_.at({0, at.second})) << at.first << ":" << at.second;
    Report report;
    const size_t done = result.out.find("done ");
    EXPECT_NE(done, std::string::npos) << result.out;
    if (done != std::string::npos)
      std::sscanf(result.out.c_str() + done, "done %d %d", &report.batches, &report.borrowed);
    return report;
  }

  void ExpectNoLeases() {
    EXPECT_TRUE(testing::Eventually([&] { return Status().arena().extents().leased() == 0; }));
  }

  Digests right_;  // of an epoch, in host memory; batches are the same in each
};

TEST_F(DeviceSharingTest, Three_ReadTheSame_AndShare) {
  ASSERT_NO_FATAL_FAILURE(Start());
  std::vector<std::unique_ptr<RunningProgram>> readers;
  for (int i = 0; i < 3; ++i) readers.push_back(StartReader({"batch=8", "epochs=6", "depth=3", "delay_ms=4"}));
  int batches = 0, borrowed = 0;
  for (const auto& reader : readers) {
    const Report report = Finish(reader.get(), 6);
    batches += report.batches;
    borrowed += report.borrowed;
  }
  EXPECT_EQ(batches, 3 * 6 * static_cast<int>(kSteps));
  EXPECT_GT(borrowed, 0);  // two thirds could be; a loaded machine takes them out of step, down to a few
  ExpectNoLeases();
}

TEST_F(DeviceSharingTest, Killed_TheOthersReadOn) {
  ASSERT_NO_FATAL_FAILURE(Start());
  const std::vector<std::string> options = {"batch=8", "epochs=8", "depth=3", "delay_ms=5"};
  std::vector<std::unique_ptr<RunningProgram>> readers, victims;
  for (int i = 0; i < 2; ++i) readers.push_back(StartReader(options));
  for (int i = 0; i < 4; ++i) {
    victims.push_back(StartReader(options));
    ASSERT_TRUE(victims.back()->WaitForOutput("batch 0:5"));
    victims.back()->Kill(SIGKILL);
  }
  for (const auto& reader : readers) Finish(reader.get(), 8);
  for (const auto& victim : victims) EXPECT_EQ(victim->Wait().signal, SIGKILL);
  ExpectNoLeases();
}

TEST_F(DeviceSharingTest, OneThatHoldsAndIsStopped_HoldsUpNobody_AndKeepsWhatItHas) {
  ASSERT_NO_FATAL_FAILURE(Start());
  const auto held = StartReader({"batch=8", "depth=5", "hold=3"});
  const auto stopped = StartReader({"batch=8", "epochs=3", "depth=3", "delay_ms=3"});
  ASSERT_TRUE(held->WaitForOutput("holding"));
  ASSERT_TRUE(stopped->WaitForOutput("batch 0:3"));
  stopped->Kill(SIGSTOP);
  const auto other = StartReader({"batch=8", "epochs=3", "depth=3"});
  Finish(other.get(), 3);
  stopped->Kill(SIGCONT);
  Finish(stopped.get(), 3);
  held->Say("go on");
  ASSERT_TRUE(held->WaitForOutput("intact"));
  Finish(held.get(), 1);
  ExpectNoLeases();
}

}  // namespace
}  // namespace stoker
