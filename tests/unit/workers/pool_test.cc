// SPDX-License-Identifier: Apache-2.0
#include "server/workers/pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "tests/unit/loop/loop_thread.h"

namespace stoker::workers {
namespace {

using ::stoker::testing::LoopThread;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::StartsWith;
using ::testing::UnorderedElementsAre;

constexpr char kScripted[] = STOKER_SCRIPTED_WORKER_PROGRAM;
constexpr absl::Duration kPatience = absl::Seconds(60);  // for what must happen

// Tasks by number, each a word of the scripted worker; notes how each ended. Put from any thread, else on the loop.
class Script : public TaskSource {
 public:
  void Put(uint64_t id, const std::string& what, uint64_t stream = 0) {
    absl::MutexLock lock(&mutex_);
    Task task{.id = id, .stream = stream, .message = {}};
    task.message.mutable_ingest_unit()->set_unit(id);
    task.message.mutable_ingest_unit()->set_source(what);
    tasks_.push_back(std::move(task));
  }
  // What happened, in order, once it is `count` events.
  std::vector<std::string> Await(size_t count) const {
    absl::MutexLock lock(&mutex_);
    const auto there = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return events_.size() >= count; };
    mutex_.AwaitWithTimeout(absl::Condition(&there), kPatience);
    return events_;
  }

  std::optional<Task> NextTask() override {
    absl::MutexLock lock(&mutex_);
    if (tasks_.empty()) return std::nullopt;
    Task task = std::move(tasks_.front());
    tasks_.pop_front();
    return task;
  }
  v1::ToWorker::OpenStream OpenStream(uint64_t stream) override {
    v1::ToWorker::OpenStream open;
    open.set_stream(stream);
    return open;
  }
  void Done(uint64_t task, const absl::Status& status) override {
    Note(absl::StrCat("done ", task, " ", status.ToString()));
  }
  void Lost(uint64_t task, absl::string_view how) override { Note(absl::StrCat("lost ", task, " ", how)); }
  void Returned(uint64_t task) override { Note(absl::StrCat("returned ", task)); }
  void Progress(uint64_t task, uint64_t bytes) override { Note(absl::StrCat("progress ", task, " ", bytes)); }

 private:
  void Note(std::string event) {
    absl::MutexLock lock(&mutex_);
    events_.push_back(std::move(event));
  }
  mutable absl::Mutex mutex_;
  std::deque<Task> tasks_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> events_ ABSL_GUARDED_BY(mutex_);
};

class WorkerPoolTest : public ::testing::Test {
 protected:
  ~WorkerPoolTest() override {
    loop_->Call([this] { pool_.reset(); });
  }

  void Start(const std::string& program, int count, absl::Duration deadline = kPatience) {
    PoolOptions options;
    options.program = program;
    options.count = count;
    options.deadline = deadline;
    options.role = "test";
    options.warn = [this](absl::string_view line) {
      absl::MutexLock lock(&mutex_);
      warnings_.emplace_back(line);
    };
    loop_->Call([&] {
      pool_ = std::make_unique<WorkerPool>(std::move(options), &*loop_, &script_);
      pool_->Start();
    });
  }
  void StartScripted(int count, absl::Duration deadline = kPatience) { Start(kScripted, count, deadline); }
  void Put(uint64_t id, const std::string& what, uint64_t stream = 0) {
    script_.Put(id, what, stream);
    loop_->Call([this] { pool_->Poke(); });
  }
  std::vector<std::string> AwaitWarnings(size_t count) {
    absl::MutexLock lock(&mutex_);
    const auto there = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return warnings_.size() >= count; };
    mutex_.AwaitWithTimeout(absl::Condition(&there), kPatience);
    return warnings_;
  }
  v1::StatusReply Status() {
    return loop_->Call([this] {
      v1::StatusReply status;
      pool_->FillStatus(&status);
      return status;
    });
  }
  // Polls until the workers' states are these; what they are at last.
  std::vector<std::string> AwaitStates(const std::vector<std::string>& wanted) {
    std::vector<std::string> states;
    for (const absl::Time end = absl::Now() + kPatience; absl::Now() < end; absl::SleepFor(absl::Milliseconds(5))) {
      states.clear();
      const v1::StatusReply status = Status();
      for (const auto& worker : status.workers()) states.push_back(worker.state());
      if (states == wanted) break;
    }
    return states;
  }

  absl::Mutex mutex_;
  std::vector<std::string> warnings_ ABSL_GUARDED_BY(mutex_);
  Script script_;
  LoopThread loop_;
  std::unique_ptr<WorkerPool> pool_;  // on the loop's thread
};

TEST_F(WorkerPoolTest, Tasks_AreAnsweredInTurnWithTheirStatus) {
  StartScripted(1);
  Put(1, "fine");
  Put(2, "refuse");
  Put(3, "fine");
  EXPECT_THAT(script_.Await(3), ElementsAre("done 1 OK", "done 2 INVALID_ARGUMENT: a.ts:3: no", "done 3 OK"));
  EXPECT_EQ(Status().workers(0).parts_done(), 3u);
  EXPECT_EQ(Status().workers(0).restarts(), 0u);
  EXPECT_EQ(Status().workers(0).role(), "test");
}

TEST_F(WorkerPoolTest, Tasks_SpreadOverWorkersBeforeTheyQueue) {
  StartScripted(3);
  ASSERT_THAT(AwaitStates({"idle", "idle", "idle"}), ElementsAre("idle", "idle", "idle"));
  script_.Put(1, "hang");
  script_.Put(2, "hang");
  script_.Put(3, "hang");
  loop_->Call([this] { pool_->Poke(); });
  EXPECT_THAT(AwaitStates({"busy", "busy", "busy"}), ElementsAre("busy", "busy", "busy"));
  EXPECT_FALSE(loop_->Call([this] { return pool_->idle(); }));
}

TEST_F(WorkerPoolTest, WorkerThatDies_LosesItsTaskReturnsTheNextAndIsReplaced) {
  StartScripted(1);
  ASSERT_THAT(AwaitStates({"idle"}), ElementsAre("idle"));
  script_.Put(1, "die");
  script_.Put(2, "fine");  // given to it too, behind the first
  loop_->Call([this] { pool_->Poke(); });
  EXPECT_THAT(script_.Await(2), ElementsAre("returned 2", "lost 1 exit status 7"));
  Put(3, "fine");
  EXPECT_THAT(script_.Await(3), ElementsAre("returned 2", "lost 1 exit status 7", "done 3 OK"));
  EXPECT_EQ(Status().workers(0).restarts(), 1u);
  EXPECT_THAT(AwaitWarnings(1), ElementsAre(AllOf(StartsWith("worker "), HasSubstr("(test) ended: exit status 7"))));
}

TEST_F(WorkerPoolTest, WorkerThatIsKilledWhileIdle_IsReplacedAndNothingIsLost) {
  StartScripted(2);
  ASSERT_THAT(AwaitStates({"idle", "idle"}), ElementsAre("idle", "idle"));
  ::kill(static_cast<pid_t>(Status().workers(1).pid()), SIGKILL);
  EXPECT_THAT(AwaitWarnings(1), ElementsAre(HasSubstr("killed by signal 9")));
  EXPECT_THAT(AwaitStates({"idle", "idle"}), ElementsAre("idle", "idle"));
  EXPECT_EQ(Status().workers(0).restarts(), 0u);
  EXPECT_EQ(Status().workers(1).restarts(), 1u);
  EXPECT_THAT(script_.Await(0), IsEmpty());
}

TEST_F(WorkerPoolTest, WorkerThatHangs_IsKilledAtTheDeadline) {
  StartScripted(1, absl::Seconds(1));
  Put(1, "hang");
  EXPECT_THAT(script_.Await(1), ElementsAre("lost 1 killed by signal 9, because it took longer than 1s"));
}

TEST_F(WorkerPoolTest, TaskThatReportsProgress_MayTakeLongerThanTheDeadline) {
  StartScripted(1, absl::Seconds(3));
  Put(1, "progress 8");  // four seconds
  const std::vector<std::string> events = script_.Await(9);
  ASSERT_THAT(events, SizeIs(9));
  EXPECT_EQ(events[0], "progress 1 8");
  EXPECT_EQ(events[8], "done 1 OK");
}

TEST_F(WorkerPoolTest, WorkerThatIsNeverReady_IsKilledAtTheDeadlineAndStartedAgain) {
  ASSERT_EQ(::setenv("STOKER_SCRIPTED_SILENT", "1", 1), 0);
  StartScripted(1, absl::Seconds(1));
  EXPECT_THAT(AwaitWarnings(1), ElementsAre(HasSubstr("it took longer than 1s")));
  ::unsetenv("STOKER_SCRIPTED_SILENT");
  Put(1, "fine");
  EXPECT_THAT(script_.Await(1), ElementsAre("done 1 OK"));
}

class WorkerPoolRubbish : public WorkerPoolTest, public ::testing::WithParamInterface<const char*> {};

TEST_P(WorkerPoolRubbish, WorkerThatSendsIt_IsReplacedAndItsTaskIsLost) {
  StartScripted(1);
  Put(1, GetParam());
  EXPECT_THAT(script_.Await(1), ElementsAre(StartsWith("lost 1 killed by signal 9, because it ")));
  Put(2, "fine");
  EXPECT_THAT(script_.Await(2), ElementsAre(StartsWith("lost 1"), "done 2 OK"));
}
INSTANTIATE_TEST_SUITE_P(All, WorkerPoolRubbish, ::testing::Values("rubbish", "nothing", "other"),
                         [](const auto& info) { return std::string(info.param); });

TEST_F(WorkerPoolTest, ProgramThatCannotRun_IsTriedAgainAndTasksStayWithTheirSource) {
  Start("/bin/false", 1);
  Put(1, "fine");
  EXPECT_THAT(AwaitWarnings(3), ::testing::Each(HasSubstr("exit status 1")));
  EXPECT_THAT(script_.Await(0), IsEmpty());
  EXPECT_THAT(Status().notices(), ElementsAre(::testing::AllOf(HasSubstr("/bin/false"), HasSubstr("exit status 1"))));
}

TEST_F(WorkerPoolTest, SegmentsAndStreams_ReachEachWorkerOnceAndItsReplacement) {
  StartScripted(1);
  loop_->Call([this] {
    pool_->MapSegment(1, 0, 4096);
    pool_->MapSegment(2, 0, 4096);
    pool_->UnmapSegment(1);
  });
  Put(1, "what-is-known", /*stream=*/7);
  Put(2, "die", 8);
  Put(3, "what-is-known", 9);
  const std::vector<std::string> events = script_.Await(3);
  ASSERT_THAT(events, SizeIs(::testing::Ge(3u)));
  EXPECT_EQ(events[0], "done 1 ABORTED: segments 2 streams 7");
  // The third may have been in the hand of the one that died.
  if (events[1] == "returned 3") Put(3, "what-is-known", 9);
  EXPECT_THAT(script_.Await(events[1] == "returned 3" ? 4 : 3).back(), "done 3 ABORTED: segments 2 streams 9");
}

TEST_F(WorkerPoolTest, CloseStream_IsToldAndTheStreamOpensAnew) {
  StartScripted(1);
  Put(1, "what-is-known", 7);
  ASSERT_THAT(script_.Await(1), ElementsAre("done 1 ABORTED: segments  streams 7"));
  loop_->Call([this] { pool_->CloseStream(7); });
  Put(2, "what-is-known");
  EXPECT_EQ(script_.Await(2).back(), "done 2 ABORTED: segments  streams ");
  Put(3, "what-is-known", 7);
  EXPECT_EQ(script_.Await(3).back(), "done 3 ABORTED: segments  streams 7");
}

TEST_F(WorkerPoolTest, Stop_ReturnsWhatIsInHandAndKillsAll) {
  StartScripted(2);
  ASSERT_THAT(AwaitStates({"idle", "idle"}), ElementsAre("idle", "idle"));
  Put(1, "hang");
  Put(2, "hang");
  const v1::StatusReply before = Status();
  loop_->Call([this] { pool_->Stop(); });
  EXPECT_THAT(script_.Await(2), UnorderedElementsAre("returned 1", "returned 2"));
  for (const auto& worker : before.workers()) EXPECT_EQ(::kill(static_cast<pid_t>(worker.pid()), 0), -1);
  EXPECT_EQ(Status().workers_size(), 0);
  // And it can begin again.
  loop_->Call([this] { pool_->Start(); });
  Put(3, "fine");
  EXPECT_EQ(script_.Await(3).back(), "done 3 OK");
}

TEST_F(WorkerPoolTest, WithoutAProgram_TheWorkerIsAThread) {
  Start("", 0);
  Put(1, "/nowhere/a.ts");
  EXPECT_THAT(script_.Await(1), ElementsAre(AllOf(StartsWith("done 1 "), HasSubstr("/nowhere/a.ts"))));
  EXPECT_EQ(Status().workers(0).pid(), static_cast<uint64_t>(::getpid()));
}

}  // namespace
}  // namespace stoker::workers
