// SPDX-License-Identifier: Apache-2.0
// The crash table of server/DESIGN.md, row by row: whatever dies, every batch comes once and right, and nothing is
// left.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <memory>
#include <thread>

#include "absl/strings/match.h"
#include "tests/integration/fixture.h"
#include "tests/integration/reader.h"

namespace stoker {
namespace {

using testing::DigestOf;
using testing::Digests;
using testing::DigestsIn;
using testing::Eventually;
using ::testing::HasSubstr;
using testing::IntegrationTest;
using ::testing::IsEmpty;
using testing::MakeSamples;
using testing::Program;
using testing::ProgramResult;
using testing::Read;
using testing::ReadEpoch;
using testing::RunningProgram;
using testing::Samples;
using testing::SegmentsOf;
using testing::StatusIs;
using testing::WorkersOf;

// Batches of 32 samples of 64 KiB: 2 MiB each, 12 an epoch, 7 in an arena of 16 MiB.
Samples TwelveBatches() { return MakeSamples(384, 2, 64); }
constexpr uint32_t kBatch = 32;
constexpr uint64_t kSteps = 12;

class FaultsTest : public IntegrationTest {
 protected:
  std::unique_ptr<RunningProgram> StartReader(const std::vector<std::string>& options) {
    return std::make_unique<RunningProgram>(testing::ReaderCommand(daemon().address(), "faulty", options));
  }
  LoaderOptions Shuffled(uint64_t epochs = 1) {
    LoaderOptions options = Read("faulty", kBatch, epochs);
    options.plan.set_shuffle(true);
    options.plan.set_seed(11);
    return options;
  }
  uint64_t Restarts() {
    uint64_t restarts = 0;
    const v1::StatusReply status = Status();
    for (const auto& worker : status.workers()) restarts += worker.restarts();
    return restarts;
  }
  bool AllWorkersReady() {
    const v1::StatusReply status = Status();
    return std::all_of(status.workers().begin(), status.workers().end(), [](const auto& worker) {
      return worker.role() != "batches" || worker.state() == "idle" || worker.state() == "busy";
    });
  }
  std::vector<pid_t> Workers() {
    std::vector<pid_t> pids;
    const v1::StatusReply status = Status();
    for (const auto& worker : status.workers()) {
      if (worker.role() == "batches" && worker.pid() > 0) pids.push_back(worker.pid());
    }
    return pids;
  }
};

size_t OpenDescriptors(pid_t pid) {
  const std::filesystem::directory_iterator descriptors(absl::StrCat("/proc/", pid, "/fd"));
  return static_cast<size_t>(std::distance(begin(descriptors), end(descriptors)));
}

// ---- workers ----

// One or the other worker at every fourth batch: a batch that lost its worker is through before the next kill.
TEST_F(FaultsTest, WorkerKilled_WhileReading_EveryBatchIsRight) {
  ASSERT_NO_FATAL_FAILURE(StartDaemon({.arena_bytes = "16MiB"}));
  IngestSamples("faulty", TwelveBatches());
  const Digests expected = ReadAll(Shuffled());
  LoaderOptions options = Shuffled(/*epochs=*/4);
  options.prefetch = 2;
  ASSERT_OK_AND_ASSIGN(Loader loader, client().Open(options));
  int batches = 0;
  for (uint64_t epoch = 0; epoch < 4;) {
    ASSERT_OK_AND_ASSIGN(const std::optional<Batch> batch, loader.Next(absl::Seconds(60)));
    if (!batch) {
      ++epoch;
      continue;
    }
    if (epoch == 0) {
      EXPECT_EQ(DigestOf(*batch), expected.at({0, batch->step()})) << "step " << batch->step();
    }
    if (++batches % 4 != 0) continue;
    const std::vector<pid_t> workers = Workers();
    if (!workers.empty()) ::kill(workers[static_cast<size_t>(batches / 4) % workers.size()], SIGKILL);
  }
  EXPECT_EQ(batches, 4 * static_cast<int>(kSteps));
  EXPECT_GE(Restarts(), 6u);
  ASSERT_TRUE(Eventually([&] { return AllWorkersReady(); }));
  EXPECT_EQ(Workers().size(), 2u);
}

TEST_F(FaultsTest, WorkerKilled_OftenWhileIdle_DaemonKeepsItsDescriptors) {
  ASSERT_NO_FATAL_FAILURE(StartDaemon());
  ASSERT_TRUE(Eventually([&] { return AllWorkersReady(); }));
  const size_t before = OpenDescriptors(daemon().pid());
  for (int i = 0; i < 4; ++i) {
    const uint64_t restarts = Restarts();
    for (const pid_t pid : WorkersOf(daemon().pid())) ::kill(pid, SIGKILL);
    ASSERT_TRUE(Eventually([&] { return Restarts() >= restarts + 2 && AllWorkersReady(); }));
  }
  EXPECT_EQ(WorkersOf(daemon().pid()).size(), 2u);
  EXPECT_LE(OpenDescriptors(daemon().pid()), before + 2);  // gRPC may have opened one of its own
}

TEST_F(FaultsTest, WorkerStopped_IsReplacedAtItsDeadline) {
  ASSERT_NO_FATAL_FAILURE(StartDaemon({.arena_bytes = "16MiB", .extra = {"--part-deadline", "2"}}));
  IngestSamples("faulty", TwelveBatches());
  const Digests expected = ReadAll(Shuffled());
  const std::vector<pid_t> workers = Workers();
  for (const pid_t pid : workers) ::kill(pid, SIGSTOP);
  LoaderOptions other = Shuffled();
  other.plan.set_batch_size(16);  // another stream: all is made anew
  EXPECT_EQ(ReadAll(other).size(), 2 * kSteps);
  EXPECT_EQ(ReadAll(Shuffled()), expected);
  EXPECT_GE(Restarts(), 2u);
  ASSERT_TRUE(Eventually([&] { return AllWorkersReady(); }));
  for (const pid_t pid : Workers()) EXPECT_THAT(workers, ::testing::Not(::testing::Contains(pid)));
}

// ---- clients ----

TEST_F(FaultsTest, ClientKilledWithLeases_LeasesAreBack) {
  ASSERT_NO_FATAL_FAILURE(StartDaemon({.arena_bytes = "16MiB"}));
  IngestSamples("faulty", TwelveBatches());
  const auto reader = StartReader({"batch=32", "hold=3", "prefetch=2"});
  ASSERT_TRUE(reader->WaitForOutput("holding"));
  ASSERT_EQ(Status().sessions_size(), 1);
  EXPECT_EQ(Status().sessions(0).pid(), reader->pid());
  ASSERT_TRUE(Eventually([&] { return Status().sessions(0).leases() == 5; }));  // 3 held, 2 ahead
  reader->Kill(SIGKILL);
  const absl::Time killed = absl::Now();
  ASSERT_TRUE(Eventually([&] { return Status().sessions().empty(); }));
  RecordProperty("milliseconds_until_leases_are_back", absl::StrCat(absl::ToInt64Milliseconds(absl::Now() - killed)));
  const v1::StatusReply status = Status();
  EXPECT_EQ(status.arena().extents().leased(), 0u);
  EXPECT_EQ(status.streams(0).clients(), 0u);
  EXPECT_EQ(ReadAll(Read("faulty", kBatch)).size(), kSteps);
}

TEST_F(FaultsTest, ClientKilled_ManyTimes_DaemonKeepsItsDescriptors) {
  ASSERT_NO_FATAL_FAILURE(StartDaemon({.arena_bytes = "16MiB"}));
  IngestSamples("faulty", TwelveBatches());
  size_t before = 0;
  for (int i = 0; i < 6; ++i) {
    const auto reader = StartReader({"batch=32", "epochs=1000"});
    ASSERT_TRUE(reader->WaitForOutput("batch 0:5"));
    reader->Kill(SIGKILL);
    reader->Wait();
    ASSERT_TRUE(Eventually([&] { return Status().sessions().empty(); }));
    if (i == 1) before = OpenDescriptors(daemon().pid());
  }
  EXPECT_LE(OpenDescriptors(daemon().pid()), before + 2);
}

TEST_F(FaultsTest, StoppedClient_FindsItsBatchesIntactAndStallsNobody) {
  ASSERT_NO_FATAL_FAILURE(StartDaemon({.arena_bytes = "16MiB"}));
  IngestSamples("faulty", TwelveBatches());
  const auto reader = StartReader({"batch=32", "hold=2", "prefetch=1"});
  ASSERT_TRUE(reader->WaitForOutput("holding"));
  reader->Kill(SIGSTOP);
  ASSERT_OK_AND_ASSIGN(Loader loader, client().Open(Shuffled(/*epochs=*/3)));
  for (int epoch = 0; epoch < 3; ++epoch) EXPECT_EQ(ReadEpoch(&loader).size(), kSteps);
  const v1::StatusReply status = Status();
  EXPECT_GT(status.arena().evictions(), 0u);
  ASSERT_EQ(status.streams_size(), 2);
  reader->Kill(SIGCONT);
  reader->Say("look");
  ASSERT_TRUE(reader->WaitForOutput("intact"));
  const ProgramResult result = reader->Wait();
  EXPECT_EQ(result.exit_code, 0) << result.out;
  EXPECT_EQ(DigestsIn(result.out), ReadAll(Read("faulty", kBatch)));
}

// Stopped while batches are on their way to it, rather than while it waits.
TEST_F(FaultsTest, StoppedClient_InTheMiddleOfReading_GoesOn) {
  ASSERT_NO_FATAL_FAILURE(StartDaemon({.arena_bytes = "16MiB"}));
  IngestSamples("faulty", TwelveBatches());
  const auto reader = StartReader({"batch=32", "epochs=2", "delay_ms=5"});
  ASSERT_TRUE(reader->WaitForOutput("batch 0:3"));
  reader->Kill(SIGSTOP);
  ASSERT_OK_AND_ASSIGN(Loader loader, client().Open(Shuffled(/*epochs=*/2)));
  for (int epoch = 0; epoch < 2; ++epoch) EXPECT_EQ(ReadEpoch(&loader).size(), kSteps);
  reader->Kill(SIGCONT);
  const ProgramResult result = reader->Wait();
  EXPECT_EQ(result.exit_code, 0) << result.out;
  LoaderOptions options = Read("faulty", kBatch, /*epochs=*/2);
  ASSERT_OK_AND_ASSIGN(Loader again, client().Open(options));
  Digests expected = ReadEpoch(&again);
  expected.merge(ReadEpoch(&again));
  EXPECT_EQ(DigestsIn(result.out), expected);
}

// ---- the daemon ----

class DaemonKilledTest : public FaultsTest {
 protected:
  // Always at the same place, with the same cache.
  void Start() {
    daemon_ = std::make_unique<RunningProgram>(
        std::vector<std::string>{Program("stokerd"), "--socket", socket(), "--cache-dir", cache_dir(), "--root",
                                 DataFile(""), "--arena-bytes", "16MiB", "--workers", "2"});
    ASSERT_TRUE(daemon_->WaitForError("serving ", absl::Seconds(60))) << daemon_->error();
    absl::StatusOr<Client> client = Client::Connect({.address = socket()});
    ASSERT_OK(client);
    ASSERT_OK_AND_ASSIGN(status_, client->GetStatus());
    RememberInstance(status_);
  }
  void StopByTerm() {
    daemon_->Kill(SIGTERM);
    const ProgramResult result = daemon_->Wait();
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_THAT(SegmentsOf(status_.instance_id()), IsEmpty());
    EXPECT_FALSE(std::filesystem::exists(socket()));
  }
  void Ingest(const Client& client) {
    v1::IngestRequest request;
    request.set_name("faulty");
    request.add_source(WriteData("faulty.ts", ToTs(TwelveBatches())));
    ASSERT_OK(client.Ingest(request));
  }
  std::string socket() const { return dir().File("stoker.sock"); }

  std::unique_ptr<RunningProgram> daemon_;
  v1::StatusReply status_;
};

TEST_F(DaemonKilledTest, DaemonKilled_ClientGoesOnAtTheStepWithTheNextOne) {
  ASSERT_NO_FATAL_FAILURE(Start());
  ASSERT_OK_AND_ASSIGN(Client client, Client::Connect({.address = socket()}));
  ASSERT_NO_FATAL_FAILURE(Ingest(client));
  ASSERT_OK_AND_ASSIGN(Loader whole, client.Open(Shuffled()));
  const Digests expected = ReadEpoch(&whole);
  whole.Close();
  ASSERT_OK_AND_ASSIGN(Loader loader, client.Open(Shuffled()));
  std::optional<Batch> held;
  for (int i = 0; i < 4; ++i) {
    ASSERT_OK_AND_ASSIGN(held, loader.Next(absl::Seconds(60)));
    EXPECT_EQ(DigestOf(*held), expected.at({0, held->step()}));
  }
  const v1::StatusReply before = status_;
  daemon_->Kill(SIGKILL);
  EXPECT_EQ(daemon_->Wait().signal, SIGKILL);
  EXPECT_TRUE(Eventually([&] { return WorkersOf(before.pid()).empty(); }));
  EXPECT_EQ(DigestOf(*held), expected.at({0, 3}));
  EXPECT_FALSE(SegmentsOf(before.instance_id()).empty());  // nobody was left to remove them

  ASSERT_NO_FATAL_FAILURE(Start());
  EXPECT_NE(status_.instance_id(), before.instance_id());
  EXPECT_THAT(SegmentsOf(before.instance_id()), IsEmpty());
  EXPECT_EQ(ReadEpoch(&loader), Digests(expected.find({0, 4}), expected.end()));
  EXPECT_OK(held->Check());
  EXPECT_EQ(DigestOf(*held), expected.at({0, 3}));
  EXPECT_EQ(loader.transport(), "shm");
  loader.Close();
  StopByTerm();
}

// Nobody can know any more who reads whose copy: all that was shared stays, and places get other memory.
TEST_F(DaemonKilledTest, DaemonKilled_WhoSharesBatchesOnADevice_ReadsOn) {
  ASSERT_NO_FATAL_FAILURE(Start());
  ASSERT_OK_AND_ASSIGN(Client client, Client::Connect({.address = socket()}));
  ASSERT_NO_FATAL_FAILURE(Ingest(client));
  std::vector<std::unique_ptr<RunningProgram>> readers;
  for (int i = 0; i < 2; ++i) {
    readers.push_back(std::make_unique<RunningProgram>(
        testing::DeviceReaderCommand(socket(), "faulty", {"batch=32", "epochs=3", "depth=3", "delay_ms=10"})));
  }
  for (const char* place : {"batch 0:4 ", "batch 1:8 "}) {
    for (const auto& reader : readers) ASSERT_TRUE(reader->WaitForOutput(place)) << reader->output();
    daemon_->Kill(SIGKILL);
    daemon_->Wait();
    ASSERT_NO_FATAL_FAILURE(Start());
  }
  ASSERT_OK_AND_ASSIGN(Loader loader, client.Open(Read("faulty", kBatch, /*epochs=*/3)));
  Digests expected;
  for (int epoch = 0; epoch < 3; ++epoch) expected.merge(ReadEpoch(&loader));
  loader.Close();
  for (const auto& reader : readers) {
    const ProgramResult result = reader->Wait();
    EXPECT_EQ(result.exit_code, 0) << result.out;
    EXPECT_EQ(DigestsIn(result.out), expected);
  }
  StopByTerm();
}

TEST_F(DaemonKilledTest, DaemonKilled_AndTheLoaderMoved_GoesOnAtTheNewPlaceWithTheNextOne) {
  ASSERT_NO_FATAL_FAILURE(Start());
  ASSERT_OK_AND_ASSIGN(Client client, Client::Connect({.address = socket()}));
  ASSERT_NO_FATAL_FAILURE(Ingest(client));
  ASSERT_OK_AND_ASSIGN(Loader loader, client.Open(Shuffled(/*epochs=*/3)));
  const Digests expected = ReadEpoch(&loader);
  std::optional<Batch> held;
  ASSERT_OK_AND_ASSIGN(held, loader.Next(absl::Seconds(60)));
  const uint32_t digest = DigestOf(*held);
  ASSERT_OK(loader.SetEpoch(2));
  daemon_->Kill(SIGSTOP);  // so that it answers nothing any more
  ASSERT_OK(loader.SetEpoch(0));
  daemon_->Kill(SIGKILL);
  EXPECT_EQ(daemon_->Wait().signal, SIGKILL);
  ASSERT_NO_FATAL_FAILURE(Start());
  EXPECT_EQ(ReadEpoch(&loader), expected);
  EXPECT_EQ(DigestOf(*held), digest);
  loader.Close();
  StopByTerm();
}

TEST_F(DaemonKilledTest, DaemonKilled_AgainAndAgain_ReaderGetsEveryBatchOnce) {
  ASSERT_NO_FATAL_FAILURE(Start());
  ASSERT_OK_AND_ASSIGN(Client client, Client::Connect({.address = socket()}));
  ASSERT_NO_FATAL_FAILURE(Ingest(client));
  RunningProgram reader(testing::ReaderCommand(socket(), "faulty", {"batch=32", "seed=11", "epochs=3", "delay_ms=10"}));
  absl::Time served = absl::Now();
  absl::Duration least = absl::InfiniteDuration();
  int daemons = 0;
  for (const char* place : {"batch 0:2 ", "batch 0:9 ", "batch 1:8 "}) {
    ASSERT_TRUE(reader.WaitForOutput(place)) << reader.output();
    if (daemons++ > 0) least = std::min(least, absl::Now() - served);
    daemon_->Kill(SIGKILL);
    daemon_->Wait();
    EXPECT_THAT(client.GetStatus(), StatusIs(absl::StatusCode::kUnavailable));
    ASSERT_NO_FATAL_FAILURE(Start());
    EXPECT_OK(client.GetStatus());
    served = absl::Now();
  }
  EXPECT_LT(least, absl::Seconds(3)) << "seven batches or more, after the reader has found the new daemon";
  const ProgramResult result = reader.Wait();
  EXPECT_EQ(result.exit_code, 0) << result.out;
  const Digests read = DigestsIn(result.out);
  EXPECT_EQ(read.size(), 3 * kSteps);
  ASSERT_OK_AND_ASSIGN(Loader loader, client.Open(Shuffled(/*epochs=*/3)));
  Digests expected;
  for (int epoch = 0; epoch < 3; ++epoch) expected.merge(ReadEpoch(&loader));
  EXPECT_EQ(read, expected);
  loader.Close();
  StopByTerm();
}

TEST_F(DaemonKilledTest, DaemonGoneForGood_NextSaysUnavailable) {
  ASSERT_NO_FATAL_FAILURE(Start());
  ASSERT_OK_AND_ASSIGN(Client client, Client::Connect({.address = socket()}));
  ASSERT_NO_FATAL_FAILURE(Ingest(client));
  LoaderOptions options = Shuffled();
  options.reconnect_timeout = absl::Milliseconds(300);
  ASSERT_OK_AND_ASSIGN(Loader loader, client.Open(options));
  ASSERT_OK(loader.Next(absl::Seconds(60)));
  StopByTerm();
  absl::Status status;
  while (status.ok()) status = loader.Next(absl::Seconds(60)).status();  // some may be there already
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kUnavailable, HasSubstr(socket())));
}

// ---- segments ----

TEST_F(FaultsTest, RemovedSegments_AreReplacedAndReadersGoOn) {
  ASSERT_NO_FATAL_FAILURE(StartDaemon({.arena_bytes = "16MiB"}));
  IngestSamples("faulty", TwelveBatches());
  const std::string instance = Status().instance_id();
  ASSERT_OK_AND_ASSIGN(Loader loader, client().Open(Shuffled(/*epochs=*/1000)));
  const Digests expected = ReadEpoch(&loader);
  std::optional<Batch> held;
  ASSERT_OK_AND_ASSIGN(held, loader.Next(absl::Seconds(60)));
  const uint32_t digest = DigestOf(*held);
  const std::vector<std::string> removed = SegmentsOf(instance);
  ASSERT_FALSE(removed.empty());
  for (const std::string& name : removed) ASSERT_EQ(::unlink(absl::StrCat("/dev/shm/", name).c_str()), 0);
  while (SegmentsOf(instance).size() < removed.size()) {
    ASSERT_OK(loader.Next(absl::Seconds(60)));
  }
  EXPECT_EQ(DigestOf(*held), digest);
  EXPECT_OK(held->Check());
  held.reset();
  ASSERT_OK(loader.SetEpoch(0));
  EXPECT_EQ(ReadEpoch(&loader), expected);
  const auto reader = StartReader({"batch=32", "seed=11", "transport=shm"});
  EXPECT_EQ(DigestsIn(reader->Wait().out), expected);
  // What nobody holds any more is unmapped.
  EXPECT_TRUE(Eventually([&] {
    const v1::StatusReply status = Status();
    return status.arena().segments_size() == static_cast<int>(removed.size());
  }));
  EXPECT_GT(Status().arena().segments(0).generation(), removed.size());
}

// ---- the end ----

TEST_F(FaultsTest, Sigterm_WhileReading_EndsWithUnavailableAndTheBatchStays) {
  ASSERT_NO_FATAL_FAILURE(StartDaemon({.arena_bytes = "16MiB", .extra = {"--drain-deadline", "60"}}));
  IngestSamples("faulty", TwelveBatches());
  LoaderOptions options = Shuffled(/*epochs=*/1'000'000);
  options.reconnect_timeout = absl::ZeroDuration();
  ASSERT_OK_AND_ASSIGN(Loader loader, client().Open(options));
  std::optional<Batch> held;
  ASSERT_OK_AND_ASSIGN(held, loader.Next(absl::Seconds(60)));
  const uint32_t digest = DigestOf(*held);
  absl::Status end;
  std::atomic<bool> reading{false};
  std::thread reader([&] {
    while (end.ok()) {
      end = loader.Next(absl::Seconds(60)).status();
      reading = true;
    }
  });
  EXPECT_TRUE(Eventually([&] { return reading.load(); }));
  StopDaemon();  // long before the drain deadline, else it would be killed
  reader.join();
  EXPECT_THAT(end, StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_EQ(DigestOf(*held), digest);
  EXPECT_OK(held->Check());
}

TEST_F(FaultsTest, Sigterm_WithAStoppedClient_EndsByTheDeadline) {
  ASSERT_NO_FATAL_FAILURE(StartDaemon({.arena_bytes = "16MiB", .extra = {"--drain-deadline", "1"}}));
  IngestSamples("faulty", TwelveBatches());
  const auto reader = StartReader({"batch=32", "hold=2", "reconnect=0"});
  ASSERT_TRUE(reader->WaitForOutput("holding"));
  reader->Kill(SIGSTOP);
  StopDaemon();
  reader->Kill(SIGCONT);
  reader->Say("look");
  EXPECT_TRUE(reader->WaitForOutput("intact"));
  EXPECT_EQ(reader->Wait().exit_code, 1);
  EXPECT_THAT(reader->output(), HasSubstr("error UNAVAILABLE"));
}

TEST_F(FaultsTest, Sigterm_WithSomebodyWatchingTheStatus_DoesNotWaitForHim) {
  ASSERT_NO_FATAL_FAILURE(StartDaemon({.extra = {"--drain-deadline", "60"}}));
  ASSERT_OK_AND_ASSIGN(const Client watcher, Client::Connect({.address = daemon().address()}));
  std::atomic<int> replies{0};
  absl::Status end;
  std::thread watching([&] {
    end = watcher.WatchStatus(absl::Milliseconds(50), [&](const v1::StatusReply&) { return ++replies > 0; });
  });
  EXPECT_TRUE(Eventually([&] { return replies.load() >= 2; }));
  StopDaemon();
  watching.join();
  EXPECT_THAT(end, StatusIs(absl::StatusCode::kUnavailable));
}

TEST_F(FaultsTest, Sigterm_WhileStarting_LeavesNothing) {
  for (const int wait_ms : {0, 5, 20, 60}) {
    RunningProgram starting({Program("stokerd"), "--socket", dir().File("s"), "--cache-dir", cache_dir(), "--root",
                             DataFile(""), "--arena-bytes", "64MiB", "--workers", "1"});
    absl::SleepFor(absl::Milliseconds(wait_ms));
    starting.Kill(SIGTERM);
    const ProgramResult result = starting.Wait();
    EXPECT_TRUE(result.exit_code == 0 || result.signal == SIGTERM) << result.err;  // it had not begun
    EXPECT_THAT(WorkersOf(starting.pid()), IsEmpty());
  }
}

}  // namespace
}  // namespace stoker
