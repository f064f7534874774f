// SPDX-License-Identifier: Apache-2.0
#include "server/loop/event_loop.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "tests/unit/loop/loop_thread.h"

namespace stoker::loop {
namespace {

using ::stoker::testing::LoopThread;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

// Runs the loop on the test's own thread until one of its callbacks stops it, so that callbacks need no locks.
class EventLoopTest : public ::testing::Test {
 protected:
  void SetUp() override {
    int ends[2];
    ASSERT_EQ(::pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    reader_.reset(ends[0]);
    writer_.reset(ends[1]);
  }
  void WriteByte() { ASSERT_EQ(::write(writer_.get(), "x", 1), 1); }
  void ReadByte() {
    char byte;
    ASSERT_EQ(::read(reader_.get(), &byte, 1), 1);
  }
  // Stops after everything that the timers and callbacks of the test do at once.
  void StopSoon() {
    loop_.After(absl::Milliseconds(30), [this] { loop_.Stop(); });
  }

  UniqueFd reader_, writer_;
  EventLoop loop_;
  std::vector<std::string> log_;
};

// ---- Post, Call, Stop ----

TEST_F(EventLoopTest, Post_SeveralTimes_RunsInThatOrder) {
  for (const char* name : {"a", "b", "c"}) loop_.Post([this, name] { log_.push_back(name); });
  loop_.Stop();
  loop_.Run();
  EXPECT_THAT(log_, ElementsAre("a", "b", "c"));
}

TEST_F(EventLoopTest, Post_FromAPostedFunction_RunsInALaterTurn) {
  uint64_t first = 0, second = 0;
  loop_.Post([&] {
    first = loop_.turns();
    loop_.Post([&] {
      second = loop_.turns();
      loop_.Stop();
    });
  });
  loop_.Run();
  EXPECT_GT(second, first);
}

TEST_F(EventLoopTest, WatchFor_OtherEvents_TakesTheirPlace) {
  WriteByte();
  uint32_t seen = 0;
  loop_.Watch(reader_.get(), [&](uint32_t events) { seen |= events; });
  loop_.WatchFor(reader_.get(), 0);
  loop_.After(absl::Milliseconds(20), [this] { loop_.Stop(); });
  loop_.Run();
  EXPECT_EQ(seen, 0u);
}

TEST_F(EventLoopTest, Stop_RunsWhatWasPostedBefore) {
  loop_.Post([this] { log_.push_back("before"); });
  loop_.Stop();
  loop_.Post([this] { log_.push_back("after"); });
  loop_.Run();
  EXPECT_EQ(log_.at(0), "before");
}

TEST_F(EventLoopTest, Stop_FromACallback_EndsTheSameTurn) {
  uint64_t stopped_in = 0;
  WriteByte();
  loop_.Watch(reader_.get(), [&](uint32_t) {
    loop_.Unwatch(reader_.get());
    stopped_in = loop_.turns();
    loop_.Stop();
  });
  loop_.Run();
  EXPECT_EQ(loop_.turns(), stopped_in) << "it slept until something else woke it";
}

TEST_F(EventLoopTest, Post_AfterTheEnd_IsDropped) {
  const auto alive = std::make_shared<int>(1);
  {
    EventLoop loop;
    loop.Stop();
    loop.Run();
    loop.Post([this, alive] { log_.push_back("late"); });
    EXPECT_EQ(alive.use_count(), 2);
  }
  EXPECT_EQ(alive.use_count(), 1) << "what it holds is freed with the loop";
  EXPECT_THAT(log_, IsEmpty());
}

TEST_F(EventLoopTest, Call_ReturnsWhatTheFunctionReturns) {
  LoopThread loop;
  EXPECT_EQ(loop->Call([] { return 7; }), 7);
  // A result that cannot be copied and has no default.
  EXPECT_EQ(*loop->Call([] { return std::make_unique<std::string>("moved"); }), "moved");
}

TEST_F(EventLoopTest, Call_OfAVoidFunction_ReturnsAfterIt) {
  LoopThread loop;
  std::thread::id there;
  loop->Call([&] { there = std::this_thread::get_id(); });
  EXPECT_NE(there, std::this_thread::get_id());
  EXPECT_NE(there, std::thread::id());
}

// ---- timers ----

TEST_F(EventLoopTest, After_SeveralTimers_FireByTheirTimes) {
  loop_.After(absl::Milliseconds(20), [this] { log_.push_back("20"), loop_.Stop(); });
  loop_.After(absl::Milliseconds(1), [this] { log_.push_back("1"); });
  loop_.After(absl::Milliseconds(10), [this] { log_.push_back("10"); });
  const absl::Time start = absl::Now();
  loop_.Run();
  EXPECT_THAT(log_, ElementsAre("1", "10", "20"));
  EXPECT_GE(absl::Now() - start, absl::Milliseconds(20)) << "one fired early";
}

TEST_F(EventLoopTest, After_ZeroOrNegative_FiresWithoutAnythingElseHappening) {
  loop_.After(absl::ZeroDuration(), [this] { log_.push_back("zero"); });
  loop_.After(-absl::Seconds(5), [this] { log_.push_back("past"); });
  loop_.After(absl::Milliseconds(2), [this] { loop_.Stop(); });
  loop_.Run();
  EXPECT_THAT(log_, ElementsAre("past", "zero"));
}

TEST_F(EventLoopTest, After_Infinite_NeverFires) {
  loop_.After(absl::InfiniteDuration(), [this] { log_.push_back("never"); });
  StopSoon();
  loop_.Run();
  EXPECT_THAT(log_, IsEmpty());
}

TEST_F(EventLoopTest, After_FromItsOwnCallback_LetsOthersRunInBetween) {
  int rounds = 0;
  std::function<void()> again = [&] {
    if (++rounds < 100) loop_.After(absl::ZeroDuration(), again);
  };
  again();
  loop_.Post([&] { log_.push_back(rounds < 100 ? "in between" : "starved"); });
  StopSoon();
  loop_.Run();
  EXPECT_EQ(rounds, 100);
  EXPECT_THAT(log_, ElementsAre("in between"));
}

TEST_F(EventLoopTest, Cancel_BeforeItFires_KeepsItFromFiring) {
  const auto held = std::make_shared<int>(1);
  const EventLoop::TimerId timer = loop_.After(absl::Milliseconds(1), [this, held] { log_.push_back("fired"); });
  loop_.Cancel(timer);
  EXPECT_EQ(held.use_count(), 1) << "the callback is freed at once";
  StopSoon();
  loop_.Run();
  EXPECT_THAT(log_, IsEmpty());
}

TEST_F(EventLoopTest, Cancel_OfAnotherTimerDueInTheSameTurn_KeepsItFromFiring) {
  EventLoop::TimerId second = 0;
  loop_.After(absl::Milliseconds(1), [&] {
    log_.push_back("first");
    loop_.Cancel(second);
  });
  second = loop_.After(absl::Milliseconds(1), [this] { log_.push_back("second"); });
  absl::SleepFor(absl::Milliseconds(3));  // so that both are due
  StopSoon();
  loop_.Run();
  EXPECT_THAT(log_, ElementsAre("first"));
}

TEST_F(EventLoopTest, Cancel_OfItselfOfAFiredOneAndOfZero_IsIgnored) {
  EventLoop::TimerId self = 0;
  self = loop_.After(absl::ZeroDuration(), [&] {
    loop_.Cancel(self);
    log_.push_back("fired");
  });
  loop_.After(absl::Milliseconds(2), [&] {
    loop_.Cancel(self);
    loop_.Cancel(0);
    loop_.Cancel(12345);
    loop_.Stop();
  });
  loop_.Run();
  EXPECT_THAT(log_, ElementsAre("fired"));
}

// ---- descriptors ----

TEST_F(EventLoopTest, Watch_ReadableDescriptor_CallsUntilItIsRead) {
  WriteByte();
  loop_.Watch(reader_.get(), [this](uint32_t events) {
    EXPECT_TRUE(events & EPOLLIN);
    log_.push_back("ready");
    if (log_.size() < 3) return;
    ReadByte();
    StopSoon();
  });
  loop_.Run();
  EXPECT_THAT(log_, ElementsAre("ready", "ready", "ready"));
}

TEST_F(EventLoopTest, Watch_PeerIsClosed_TellsHangUp) {
  writer_.reset();
  loop_.Watch(reader_.get(), [this](uint32_t events) {
    EXPECT_TRUE(events & EPOLLHUP);
    loop_.Unwatch(reader_.get());
    loop_.Stop();
  });
  loop_.Run();
}

TEST_F(EventLoopTest, Watch_OfAWatchedDescriptor_ReplacesTheCallback) {
  WriteByte();
  loop_.Watch(reader_.get(), [this](uint32_t) { log_.push_back("old"); });
  loop_.Watch(reader_.get(), [this](uint32_t) { log_.push_back("new"), loop_.Stop(); });
  loop_.Run();
  EXPECT_THAT(log_, ElementsAre("new"));
}

TEST_F(EventLoopTest, Unwatch_InItsOwnCallback_IsTheLastCallAndKeepsTheCallbackAlive) {
  WriteByte();
  const auto held = std::make_shared<std::string>("alive");
  loop_.Watch(reader_.get(), [this, held](uint32_t) {
    loop_.Unwatch(reader_.get());
    log_.push_back(*held);  // a sanitizer sees when the callback was freed under us
  });
  StopSoon();
  loop_.Run();
  EXPECT_THAT(log_, ElementsAre("alive"));
  EXPECT_EQ(held.use_count(), 1);
}

TEST_F(EventLoopTest, Unwatch_OfAnotherDescriptorReadyInTheSameTurn_KeepsItFromBeingCalled) {
  int others[2];
  ASSERT_EQ(::pipe2(others, O_CLOEXEC | O_NONBLOCK), 0);
  const UniqueFd other_reader(others[0]), other_writer(others[1]);
  WriteByte();
  ASSERT_EQ(::write(other_writer.get(), "x", 1), 1);
  const auto watch = [this](int fd, int other) {
    loop_.Watch(fd, [this, fd, other](uint32_t) {
      log_.push_back("one of two");
      loop_.Unwatch(fd);
      loop_.Unwatch(other);
    });
  };
  watch(reader_.get(), other_reader.get());
  watch(other_reader.get(), reader_.get());
  StopSoon();
  loop_.Run();
  EXPECT_THAT(log_, ElementsAre("one of two"));
}

TEST_F(EventLoopTest, Watch_InACallback_IsServed) {
  WriteByte();
  int others[2];
  ASSERT_EQ(::pipe2(others, O_CLOEXEC | O_NONBLOCK), 0);
  const UniqueFd other_reader(others[0]), other_writer(others[1]);
  loop_.Watch(reader_.get(), [&](uint32_t) {
    loop_.Unwatch(reader_.get());
    loop_.Watch(other_reader.get(), [&](uint32_t) { loop_.Stop(); });
    ASSERT_EQ(::write(other_writer.get(), "x", 1), 1);
  });
  loop_.Run();  // ends, else the test's deadline does
}

TEST_F(EventLoopTest, Unwatch_OfADescriptorThatIsNotWatched_IsIgnored) {
  loop_.Unwatch(reader_.get());
  loop_.Unwatch(-1);
}

// ---- turns ----

TEST_F(EventLoopTest, Turns_WhenNothingHappens_GrowAllTheSame) {
  LoopThread loop;
  const uint64_t before = loop->turns();
  while (loop->turns() < before + 2) absl::SleepFor(absl::Milliseconds(10));  // the test's deadline ends it else
}

TEST_F(EventLoopTest, Turns_WhileACallbackHangs_DoNotGrow) {
  LoopThread loop;
  absl::Notification hanging, go_on;
  loop->Post([&] {
    hanging.Notify();
    go_on.WaitForNotification();
  });
  hanging.WaitForNotification();
  const uint64_t turns = loop->turns();
  absl::SleepFor(absl::Milliseconds(20));
  EXPECT_EQ(loop->turns(), turns);
  go_on.Notify();
}

}  // namespace
}  // namespace stoker::loop
