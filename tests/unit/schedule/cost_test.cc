// SPDX-License-Identifier: Apache-2.0
// What an event costs when there is much of everything. Prints it; asserts results, no times.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <deque>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/schedule/scheduler.h"
#include "tests/unit/schedule/fakes.h"

namespace stoker::schedule::testing {
namespace {

// A pool of `count` extents of one size; O(1), so that the scheduler's own cost is seen.
class SlotPool : public ExtentPool {
 public:
  explicit SlotPool(uint64_t count) : count_(count) {
    for (uint64_t i = 0; i < count; ++i) free_.push_back(i * kPage);
  }
  std::optional<ExtentRef> Allocate(uint64_t size, uint64_t) override {
    if (free_.empty()) return std::nullopt;
    const ExtentRef extent{0, free_.front(), size};
    free_.pop_front();
    return extent;
  }
  void Free(const ExtentRef& extent) override { free_.push_back(extent.offset); }
  uint64_t largest_extent() const override { return kPage; }
  uint64_t RoomFor(uint64_t size) const override { return size <= kPage ? count_ : 0; }
  uint64_t capacity_bytes() const override { return count_ * kPage; }
  void Describe(const ExtentRef& extent, v1::BatchDescriptor* batch) const override {}

 private:
  const uint64_t count_;
  std::deque<uint64_t> free_;
};

struct CrowdOptions {
  uint64_t extents;
  uint32_t streams;
  uint32_t sessions;
  uint32_t credits;
};

// Clients that keep what they are sent until they are told to return it. Those of one stream stand in different places.
class Crowd : public Actions {
 public:
  explicit Crowd(const CrowdOptions& options)
      : pool_(options.extents), scheduler_({.session_limit = options.sessions}, &pool_, this) {
    for (uint32_t i = 0; i < options.sessions; ++i) {
      const StreamSpec spec = MakeSpec({.key = absl::StrCat("s", i % options.streams), .steps = 1000000});
      const Position position{0, 20 * uint64_t{i / options.streams}};
      ids_.push_back(*scheduler_.OpenSession(spec, {.position = position}, absl::UnixEpoch()));
    }
    for (const SessionId id : ids_) Timed([&] { Advance(id, {}, options.credits); });
  }

  // Each session returns what it has and asks for as much; workers make a few batches meanwhile.
  void Round() {
    for (const SessionId id : ids_) {
      const std::vector<LeaseId> release = std::exchange(held_[id], {});
      Timed([&] { Advance(id, release, static_cast<uint32_t>(release.size())); });
      Make(4);
    }
  }

  void Make(int parts) {
    for (int i = 0; i < parts; ++i) {
      std::optional<Part> part;
      Timed([&] { part = scheduler_.NextPart(); });
      if (!part) return;
      Timed([&] { scheduler_.PartDone(part->id, absl::OkStatus(), absl::UnixEpoch()); });
    }
  }

  void Drain() {
    Timed([&] { scheduler_.Drain(absl::UnavailableError("stopping")); });
  }

  void Print(const char* what) {
    std::printf("%-40s %7llu events, mean %9.1f us, longest %9.1f us\n", what, static_cast<unsigned long long>(events_),
                total_ * 1e6 / static_cast<double>(events_), longest_ * 1e6);
    std::fflush(stdout);
    events_ = 0;
    total_ = longest_ = 0;
  }
  uint64_t ready() const { return ready_; }

 private:
  template <typename F>
  void Timed(F&& event) {
    const auto begin = std::chrono::steady_clock::now();
    event();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    ++events_;
    total_ += seconds;
    longest_ = std::max(longest_, seconds);
  }
  void Advance(SessionId id, const std::vector<LeaseId>& release, uint32_t credits) {
    ASSERT_TRUE(scheduler_.Advance(id, release, credits, absl::UnixEpoch()).ok());
  }

  void Send(SessionId session, v1::SessionReply reply) override {
    if (!reply.has_ready()) return;
    ready_ += 1 + static_cast<uint64_t>(reply.following_size());
    held_[session].push_back(reply.ready().lease());
    for (const v1::SessionReply::Ready& ready : reply.following()) held_[session].push_back(ready.lease());
  }
  void End(SessionId session, const absl::Status& reason) override {}
  void BeginFilling(const ExtentRef& extent, const Position& at) override {}
  void Seal(const ExtentRef& extent, uint64_t sequence) override {}
  void PartsReady() override {}
  void StreamClosed(StreamId stream) override {}

  SlotPool pool_;
  Scheduler scheduler_;
  std::vector<SessionId> ids_;
  std::map<SessionId, std::vector<LeaseId>> held_;
  uint64_t ready_ = 0;
  uint64_t events_ = 0;
  double total_ = 0;
  double longest_ = 0;
};

constexpr int kAll = 1 << 20;

TEST(SchedulerCost, ThousandSessionsWithRoomForAll) {
  Crowd crowd({.extents = 20000, .streams = 100, .sessions = 1000, .credits = 4});
  crowd.Print("1000 sessions ask for 4");
  crowd.Make(kAll);
  crowd.Print("4000 batches are made");
  EXPECT_EQ(crowd.ready(), 4000u);
  for (int i = 0; i < 5; ++i) crowd.Round();
  crowd.Print("5 rounds, the cache of 20000 fills");
  for (int i = 0; i < 3; ++i) crowd.Round();
  crowd.Print("3 rounds, each batch evicts another");
  crowd.Drain();
  crowd.Print("drain");
}

TEST(SchedulerCost, ThousandSessionsThatWaitForRoom) {
  Crowd crowd({.extents = 200, .streams = 1000, .sessions = 1000, .credits = 4});
  crowd.Print("1000 sessions ask for 4, room for 200");
  crowd.Make(kAll);
  for (int i = 0; i < 5; ++i) crowd.Round();
  crowd.Print("5 rounds, 3800 batches wait for room");
  EXPECT_GE(crowd.ready(), 1000u);
  crowd.Drain();
  crowd.Print("drain");
}

TEST(SchedulerCost, ThousandSessionsOfOneStream) {
  Crowd crowd({.extents = 20000, .streams = 1, .sessions = 1000, .credits = 4});
  crowd.Print("1000 sessions of one stream ask for 4");
  crowd.Make(kAll);
  for (int i = 0; i < 8; ++i) crowd.Round();
  crowd.Print("8 rounds");
  EXPECT_EQ(crowd.ready(), 36000u);
  crowd.Drain();
  crowd.Print("drain");
}

TEST(SchedulerCost, DeepPrefetchThatWaitsForRoom) {
  Crowd crowd({.extents = 100, .streams = 200, .sessions = 200, .credits = 64});
  crowd.Print("200 sessions ask for 64, room for 100");
  crowd.Make(kAll);
  for (int i = 0; i < 5; ++i) crowd.Round();
  crowd.Print("5 rounds, 12700 batches wait for room");
  EXPECT_GE(crowd.ready(), 200u);
  crowd.Drain();
  crowd.Print("drain");
}

}  // namespace
}  // namespace stoker::schedule::testing
