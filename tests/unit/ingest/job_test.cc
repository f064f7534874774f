// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/job.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <filesystem>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "shared/base/posix.h"
#include "tests/support/shm_namespace.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/ingest/ingest_harness.h"

namespace stoker::ingest {
namespace {

using ::stoker::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Options = v1::IngestOptions;
using Progress = v1::IngestEvent::Progress;

// A univariate .ts of `cases` cases of about 800 bytes.
std::string ManyCases(int cases) {
  std::string text = "@classLabel true a b\n@data\n";
  for (int i = 0; i < cases; ++i) {
    absl::StrAppend(&text, i);
    for (int k = 0; k < 99; ++k) absl::StrAppend(&text, ",", 1000000 + k);
    text += i % 2 == 0 ? ":a\n" : ":b\n";
  }
  return text;
}

// So long ago that a record of now is trusted.
void SetOld(const std::string& path) {
  const timespec times[2] = {{1000000000, 0}, {1000000000, 0}};
  ASSERT_EQ(::utimensat(AT_FDCWD, path.c_str(), times, 0), 0);
}

std::map<std::string, std::string> FilesOf(const std::string& directory) {
  std::map<std::string, std::string> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory)) {
    if (entry.is_regular_file()) files[entry.path().filename()] = *ReadFile(entry.path(), 1 << 30);
  }
  return files;
}

// Runs only the first `units`, and then says that it was cancelled.
class InterruptedRunner : public UnitRunner {
 public:
  explicit InterruptedRunner(size_t units) : units_(units) {}
  absl::StatusOr<std::vector<std::string>> Run(absl::Span<const Unit> units, const Progress& progress,
                                               const Cancelled& cancelled) override {
    const auto done = ThreadUnitRunner(1).Run(units.first(std::min(units_, units.size())), progress, cancelled);
    return done.ok() ? absl::CancelledError("interrupted") : done;
  }

 private:
  size_t units_;
};

// Does something when the units are made.
class MeddlingRunner : public UnitRunner {
 public:
  explicit MeddlingRunner(std::function<void()> meddle) : meddle_(std::move(meddle)) {}
  absl::StatusOr<std::vector<std::string>> Run(absl::Span<const Unit> units, const Progress& progress,
                                               const Cancelled& cancelled) override {
    auto done = ThreadUnitRunner(1).Run(units, progress, cancelled);
    meddle_();
    return done;
  }

 private:
  std::function<void()> meddle_;
};

class IngestJobTest : public ::testing::Test {
 protected:
  std::vector<std::string> Published() const {
    std::vector<std::string> names;
    for (const char* folder : {"stores", "datasets", "staging"}) {
      std::error_code error;
      for (const auto& entry : std::filesystem::directory_iterator(harness_.cache_dir() + "/" + folder, error)) {
        names.push_back(std::string(folder) + "/" + entry.path().filename().string());
      }
    }
    return names;
  }

  IngestHarness harness_;
};

TEST_F(IngestJobTest, Ingest_PublishesStoreAndName) {
  const std::string file = harness_.Write("x.ts", ManyCases(10));
  ASSERT_OK_AND_ASSIGN(const IngestResult result, harness_.Ingest({file}));
  EXPECT_FALSE(result.unchanged);
  EXPECT_THAT(Published(), ElementsAre("stores/" + result.manifest.id(), "datasets/d.json"));
  EXPECT_EQ(result.manifest.samples(), 10u);
  EXPECT_EQ(result.manifest.id().size(), 32u);
  EXPECT_EQ(result.dataset.store(), result.manifest.id());
  ASSERT_EQ(result.dataset.sources_size(), 1);
  EXPECT_EQ(result.dataset.sources(0).path(), file);
  EXPECT_EQ(result.dataset.sources(0).sha256().size(), 64u);
  uint64_t bytes = 0;
  for (const auto& [name, content] : FilesOf(harness_.StoreDir(result)))
    bytes += name == "store.json" ? 0 : content.size();
  EXPECT_EQ(result.manifest.bytes(), bytes);
}

TEST_F(IngestJobTest, UnchangedSource_IsNotReadAgain) {
  const std::string file = harness_.Write("x.ts", ManyCases(10));
  SetOld(file);
  ASSERT_OK(harness_.Ingest({file}));
  ThreadUnitRunner runner(1);
  std::vector<std::string> phases;
  IngestJob job(harness_.Params({file}), &runner,
                [&](const Progress& progress) { phases.push_back(progress.phase()); });
  ASSERT_OK_AND_ASSIGN(const IngestResult result, job.Run());
  EXPECT_TRUE(result.unchanged);
  EXPECT_EQ(result.manifest.samples(), 10u);
  EXPECT_TRUE(phases.empty());
}

TEST_F(IngestJobTest, YoungSource_IsHashedAgain) {
  const std::string file = harness_.Write("x.ts", ManyCases(10));
  struct stat info;
  ASSERT_OK_AND_ASSIGN(const IngestResult first, harness_.Ingest({file}));
  ASSERT_EQ(::stat(file.c_str(), &info), 0);
  std::string changed = ManyCases(10);
  changed[changed.find("1000000")] = '2';
  harness_.Write("x.ts", changed);  // of the same size and, below, the same time
  const timespec times[2] = {info.st_mtim, info.st_mtim};
  ASSERT_EQ(::utimensat(AT_FDCWD, file.c_str(), times, 0), 0);
  ASSERT_OK_AND_ASSIGN(const IngestResult second, harness_.Ingest({file}));
  EXPECT_FALSE(second.unchanged);
  EXPECT_NE(second.manifest.id(), first.manifest.id());
}

TEST_F(IngestJobTest, OtherOptionsOrContent_AreOtherStores) {
  const std::string file = harness_.Write("x.ts", ManyCases(10));
  ASSERT_OK_AND_ASSIGN(const IngestResult first, harness_.Ingest({file}));
  Options options;
  options.set_window(50);
  ASSERT_OK_AND_ASSIGN(const IngestResult windows, harness_.Ingest({file}, options));
  EXPECT_NE(windows.manifest.id(), first.manifest.id());
  EXPECT_EQ(windows.manifest.samples(), 20u);
  options.set_stride(50);  // which is the default
  ASSERT_OK_AND_ASSIGN(const IngestResult same, harness_.Ingest({file}, options));
  EXPECT_TRUE(same.unchanged);
  options.mutable_csv()->set_gap_seconds(5);  // means nothing here
  ASSERT_OK_AND_ASSIGN(const IngestResult irrelevant, harness_.Ingest({file}, options));
  EXPECT_EQ(irrelevant.manifest.id(), windows.manifest.id());
  harness_.Write("x.ts", ManyCases(11));
  ASSERT_OK_AND_ASSIGN(const IngestResult longer, harness_.Ingest({file}));
  EXPECT_NE(longer.manifest.id(), first.manifest.id());
}

TEST_F(IngestJobTest, SameContentElsewhere_IsStoredOnce) {
  ASSERT_OK_AND_ASSIGN(const IngestResult first, harness_.Ingest({harness_.Write("x.ts", ManyCases(10))}));
  ASSERT_OK_AND_ASSIGN(const IngestResult second, harness_.Ingest({harness_.Write("y.ts", ManyCases(10))}));
  EXPECT_TRUE(second.unchanged);
  EXPECT_EQ(first.manifest.id(), second.manifest.id());
  EXPECT_THAT(second.dataset.sources(0).path(), HasSubstr("y.ts"));
}

TEST_F(IngestJobTest, AnyNumberOfThreads_GivesTheSameBytes) {
  const std::string a = harness_.Write("a.ts", ManyCases(22000));
  const std::string b = harness_.Write("b.ts", ManyCases(100));
  ASSERT_OK_AND_ASSIGN(const IngestResult one, harness_.Ingest({a, b}, {}, 1));
  const auto files = FilesOf(harness_.StoreDir(one));
  EXPECT_GT(files.size(), 3u);
  std::filesystem::remove_all(harness_.cache_dir());
  ASSERT_OK_AND_ASSIGN(const IngestResult four, harness_.Ingest({a, b}, {}, 4));
  EXPECT_EQ(one.manifest.id(), four.manifest.id());
  EXPECT_TRUE(files == FilesOf(harness_.StoreDir(four)));
}

TEST_F(IngestJobTest, InterruptedIngest_GoesOn) {
  const std::string file = harness_.Write("x.ts", ManyCases(22000));  // three units or more
  ASSERT_OK_AND_ASSIGN(const IngestResult whole, harness_.Ingest({file}));
  const auto files = FilesOf(harness_.StoreDir(whole));
  std::filesystem::remove_all(harness_.cache_dir());

  InterruptedRunner interrupted(2);
  EXPECT_THAT(IngestJob(harness_.Params({file}), &interrupted, nullptr).Run(), StatusIs(absl::StatusCode::kCancelled));
  EXPECT_THAT(Published(), ElementsAre("staging/" + whole.manifest.id()));
  const std::string leftover =
      harness_.cache_dir() + "/staging/" + whole.manifest.id() + "/shard-00002.safetensors.tmp-abc";
  ASSERT_OK(WriteFileAtomically(leftover, "of a killed worker"));

  ThreadUnitRunner runner(2);
  Progress last;
  ASSERT_OK_AND_ASSIGN(const IngestResult result,
                       IngestJob(harness_.Params({file}), &runner, [&](const Progress& p) { last = p; }).Run());
  EXPECT_EQ(last.units_resumed(), 2u);
  EXPECT_EQ(last.units_done(), last.units_total());
  EXPECT_EQ(last.phase(), "publishing");
  EXPECT_TRUE(files == FilesOf(harness_.StoreDir(result)));
}

TEST_F(IngestJobTest, DamagedShardOfAnInterruptedIngest_IsMadeAgain) {
  const std::string file = harness_.Write("x.ts", ManyCases(22000));
  InterruptedRunner interrupted(2);
  EXPECT_THAT(IngestJob(harness_.Params({file}), &interrupted, nullptr).Run(), StatusIs(absl::StatusCode::kCancelled));
  for (const auto& entry : std::filesystem::recursive_directory_iterator(harness_.cache_dir() + "/staging")) {
    if (entry.path().filename() == "shard-00001.safetensors") std::filesystem::resize_file(entry.path(), 1000);
  }
  ThreadUnitRunner runner(2);
  Progress last;
  ASSERT_OK(IngestJob(harness_.Params({file}), &runner, [&](const Progress& p) { last = p; }).Run());
  EXPECT_EQ(last.units_resumed(), 1u);
}

TEST_F(IngestJobTest, RunnerWithoutSummaries_LeavesThemInTheShards) {
  class SilentRunner : public ThreadUnitRunner {
   public:
    SilentRunner() : ThreadUnitRunner(1) {}
    absl::StatusOr<std::vector<std::string>> Run(absl::Span<const Unit> units, const Progress& progress,
                                                 const Cancelled& cancelled) override {
      auto done = ThreadUnitRunner::Run(units, progress, cancelled);
      if (done.ok()) done->assign(units.size(), "");
      return done;
    }
  } runner;
  IngestJob job(harness_.Params({harness_.Write("x.ts", ManyCases(10))}), &runner, nullptr);
  ASSERT_OK_AND_ASSIGN(const IngestResult result, job.Run());
  EXPECT_EQ(result.manifest.samples(), 10u);
}

TEST_F(IngestJobTest, Cancel_EndsTheRun) {
  const std::string file = harness_.Write("x.ts", ManyCases(22000));
  ThreadUnitRunner runner(1);
  IngestJob* running = nullptr;
  IngestJob job(harness_.Params({file}), &runner, [&](const Progress& p) {
    if (p.phase() == "reading") running->Cancel();
  });
  running = &job;
  EXPECT_THAT(job.Run(), StatusIs(absl::StatusCode::kCancelled));
  EXPECT_FALSE(std::filesystem::exists(harness_.cache_dir() + "/datasets/d.json"));
}

TEST_F(IngestJobTest, Progress_ReachesTheTotals) {
  const std::string file = harness_.Write("x.ts", ManyCases(22000));
  ThreadUnitRunner runner(2);
  std::map<std::string, std::vector<Progress>> phases;
  ASSERT_OK(
      IngestJob(harness_.Params({file}), &runner, [&](const Progress& p) { phases[p.phase()].push_back(p); }).Run());
  ASSERT_TRUE(phases.contains("hashing") && phases.contains("reading") && phases.contains("publishing"));
  uint64_t before = 0;
  for (const Progress& p : phases["reading"]) {
    EXPECT_GE(p.bytes_done(), before);
    EXPECT_LE(p.bytes_done(), p.bytes_total());
    before = p.bytes_done();
  }
  EXPECT_EQ(phases["reading"][0].bytes_total(), std::filesystem::file_size(file));
  EXPECT_EQ(phases["publishing"].back().units_done(), phases["publishing"].back().units_total());
}

TEST_F(IngestJobTest, BadData_LeavesOthersAlone) {
  ASSERT_OK(harness_.Ingest({harness_.Write("x.ts", ManyCases(10))}));
  const std::vector<std::string> before = Published();
  EXPECT_THAT(harness_.Ingest({harness_.Write("x.ts", ManyCases(10) + "1,2:c\n")}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("x.ts:13: unknown label 'c'")));
  EXPECT_EQ(Published(), before);
}

TEST_F(IngestJobTest, BadRequests_AreRefused) {
  const std::string file = harness_.Write("x.ts", ManyCases(10));
  EXPECT_THAT(harness_.Ingest({harness_.data_dir() + "/none.ts"}),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("none.ts")));
  EXPECT_THAT(harness_.Ingest({harness_.Write("e.ts", "")}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("e.ts: the file is empty")));
  IngestParams params = harness_.Params({file});
  params.roots = {harness_.cache_dir()};
  ThreadUnitRunner runner(1);
  EXPECT_THAT(IngestJob(params, &runner, nullptr).Run(),
              StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr("--root")));
  params = harness_.Params({file});
  params.name = "../x";
  EXPECT_THAT(IngestJob(params, &runner, nullptr).Run(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("../x")));
}

TEST_F(IngestJobTest, SourceThatChangesMeanwhile_IsRefused) {
  const std::string file = harness_.Write("x.ts", ManyCases(10));
  MeddlingRunner runner([&] { harness_.Write("x.ts", ManyCases(11)); });
  EXPECT_THAT(
      IngestJob(harness_.Params({file}), &runner, nullptr).Run(),
      StatusIs(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr("x.ts"), HasSubstr("changed while it was read"))));
  EXPECT_THAT(Published(), ElementsAre());
}

TEST_F(IngestJobTest, DamagedStore_IsMadeAgain) {
  const std::string file = harness_.Write("x.ts", ManyCases(10));
  SetOld(file);
  ASSERT_OK_AND_ASSIGN(const IngestResult first, harness_.Ingest({file}));
  std::filesystem::resize_file(harness_.StoreDir(first) + "/shard-00000.safetensors", 100);
  ASSERT_OK_AND_ASSIGN(const IngestResult second, harness_.Ingest({file}));
  EXPECT_FALSE(second.unchanged);
  EXPECT_EQ(second.manifest.id(), first.manifest.id());
  EXPECT_OK(store::TimeSeriesStore::Open(harness_.StoreDir(second)));
}

TEST_F(IngestJobTest, SameContentAtOnce_IsMadeByOne) {
  const std::string file = harness_.Write("x.ts", ManyCases(22000));
  for (int round = 0; round < 3; ++round) {
    std::filesystem::remove_all(harness_.cache_dir());
    std::vector<absl::StatusOr<IngestResult>> results(4, absl::UnknownError(""));
    std::vector<std::thread> threads;
    for (size_t i = 0; i < results.size(); ++i) {
      threads.emplace_back([&, i] {
        IngestParams params = harness_.Params({file});
        params.name = absl::StrCat("d", i);
        ThreadUnitRunner runner(1);
        results[i] = IngestJob(params, &runner, nullptr).Run();
      });
    }
    for (std::thread& thread : threads) thread.join();
    int made = 0;
    for (const auto& result : results) {
      ASSERT_OK(result);
      made += result->unchanged ? 0 : 1;
    }
    EXPECT_EQ(made, 1);
    EXPECT_EQ(Published().size(), 5u);  // a store and four names
  }
}

TEST_F(IngestJobTest, LockThatIsNotReleased_TimesOut) {
  const std::string file = harness_.Write("x.ts", ManyCases(10));
  ASSERT_OK_AND_ASSIGN(const IngestResult first, harness_.Ingest({file}));
  std::filesystem::remove_all(harness_.StoreDir(first));
  const std::string staging = harness_.cache_dir() + "/staging/" + first.manifest.id();
  std::filesystem::create_directory(staging);
  ASSERT_OK_AND_ASSIGN(const UniqueFd fd, OpenFile(staging, O_RDONLY | O_DIRECTORY));
  ASSERT_EQ(::flock(fd.get(), LOCK_EX), 0);
  IngestParams params = harness_.Params({file});
  params.lock_timeout = absl::Milliseconds(50);
  ThreadUnitRunner runner(1);
  EXPECT_THAT(IngestJob(params, &runner, nullptr).Run(),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("another process holds it")));
}

TEST_F(IngestJobTest, FullDisk_PublishesNothing) {
  if (const std::string reason = testing::ShmNamespaceSkipReason(); !reason.empty()) GTEST_SKIP() << reason;
  const std::string file = harness_.Write("x.ts", ManyCases(10000));
  const testing::ChildResult child = testing::RunInShmNamespace(2 << 20, [&](int) {
    IngestParams params = harness_.Params({file});
    params.cache_dir = "/dev/shm/cache";
    ThreadUnitRunner runner(1);
    EXPECT_THAT(
        IngestJob(params, &runner, nullptr).Run(),
        StatusIs(absl::StatusCode::kResourceExhausted, AllOf(HasSubstr("/dev/shm/cache"), HasSubstr("--cache-dir"))));
    EXPECT_TRUE(std::filesystem::is_empty("/dev/shm/cache/stores"));
    EXPECT_TRUE(std::filesystem::is_empty("/dev/shm/cache/staging"));
    EXPECT_TRUE(std::filesystem::is_empty("/dev/shm/cache/datasets"));
  });
  EXPECT_EQ(child.exit_code, 0);
}

TEST_F(IngestJobTest, CacheThatCannotBeMade_IsAnError) {
  IngestParams params = harness_.Params({harness_.Write("x.ts", ManyCases(10))});
  params.cache_dir = "/proc/stoker-cache";
  ThreadUnitRunner runner(1);
  const absl::Status status = IngestJob(params, &runner, nullptr).Run().status();
  EXPECT_THAT(status, ::testing::AnyOf(StatusIs(absl::StatusCode::kNotFound, HasSubstr("/proc/stoker-cache")),
                                       StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr("--cache-dir"))));
}

}  // namespace
}  // namespace stoker::ingest
