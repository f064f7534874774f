// SPDX-License-Identifier: Apache-2.0
// Assemblers that share batches: the daemon's table between them is the real one, the leases are counted.
#include "client/gpu/sharing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <map>
#include <random>
#include <thread>

#include "absl/time/clock.h"
#include "client/gpu/assembler.h"
#include "server/schedule/device_copies.h"
#include "tests/unit/gpu/memory_source.h"
#include "tests/unit/gpu/runtimes.h"

namespace stoker::gpu {
namespace {

using ::stoker::testing::StatusIs;
using ::testing::HasSubstr;

constexpr int kSteps = 7;

// What the daemon knows of copies, without the daemon. Thread-safe; outlives its sessions.
class Board : private schedule::Actions {
 public:
  // One client's session: gives the leases of a memory source numbers that no other has.
  class Session final : public client::LeaseOwner {
   public:
    Session(Board* board, uint64_t id) : board_(board), id_(id) {}

    // `batch` with a lease of this session instead of its own.
    Batch Adopt(const Batch& batch) {
      const auto data = std::const_pointer_cast<client::BatchData>(batch.data());
      absl::MutexLock lock(&board_->mu_);
      const uint64_t lease = ++board_->last_lease_;
      leases_[lease] = {data->owner(), data->lease()};
      places_[lease] = {batch.epoch(), batch.step()};
      data->AttachLease(board_->sessions_.at(id_), lease);
      return batch;
    }

    void Release(uint64_t lease) override {
      std::pair<std::shared_ptr<client::LeaseOwner>, uint64_t> own;
      {
        absl::MutexLock lock(&board_->mu_);
        own = leases_.extract(lease).mapped();
        if (!ended_) board_->copies_.LeaseReturned(lease);
      }
      own.first->Release(own.second);
    }
    absl::StatusOr<Claimed> Claim(uint64_t lease, const std::string& device, bool may_offer,
                                  absl::Time deadline) override {
      absl::MutexLock lock(&board_->mu_);
      if (ended_) return absl::UnavailableError("the session has ended");
      v1::SessionRequest::Claim claim;
      claim.set_lease(lease);
      claim.set_device(device);
      claim.set_may_offer(may_offer);
      EXPECT_OK(board_->copies_.Claim(id_, 1, places_.at(lease), claim));
      const auto answered = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return ended_ || claimed_.contains(lease); };
      if (!board_->mu_.AwaitWithDeadline(absl::Condition(&answered), deadline)) {
        late_.insert(lease);
        return absl::DeadlineExceededError("nobody has uploaded it yet");
      }
      if (!claimed_.contains(lease)) return absl::UnavailableError("the session has ended");
      return claimed_.extract(lease).mapped();
    }
    void Offer(uint64_t claim, const std::string& memory) override {
      absl::MutexLock lock(&board_->mu_);
      v1::SessionRequest::Offer offer;
      offer.set_claim(claim);
      offer.set_memory(memory);
      EXPECT_OK(ended_ ? absl::OkStatus() : board_->copies_.Offer(id_, offer));
    }
    void Withdraw(uint64_t claim) override {
      absl::MutexLock lock(&board_->mu_);
      EXPECT_OK(ended_ ? absl::OkStatus() : board_->copies_.Withdraw(id_, claim));
    }
    absl::StatusOr<bool> IsFree(uint64_t claim) override {
      absl::MutexLock lock(&board_->mu_);
      if (lost_.erase(claim) > 0) return absl::UnavailableError("a user's session has ended");
      if (free_.erase(claim) > 0) return true;
      if (ended_) return absl::UnavailableError("the session has ended");
      return false;
    }

    // As when the daemon is lost, or the client's process is killed: leases are back, nobody hears of anything.
    void End() {
      absl::MutexLock lock(&board_->mu_);
      ended_ = true;
      absl::btree_set<schedule::LeaseId> leases;
      for (const auto& [lease, own] : leases_) leases.insert(lease);
      board_->copies_.SessionClosed(id_, leases);
    }

   private:
    friend class Board;
    Board* const board_;
    const uint64_t id_;
    bool ended_ = false;
    std::map<uint64_t, std::pair<std::shared_ptr<client::LeaseOwner>, uint64_t>> leases_;
    std::map<uint64_t, schedule::Position> places_;
    std::map<uint64_t, Claimed> claimed_;
    std::set<uint64_t> late_, free_, lost_;
  };

  std::shared_ptr<Session> Open() {
    absl::MutexLock lock(&mu_);
    const uint64_t id = sessions_.size() + 1;
    return sessions_[id] = std::make_shared<Session>(this, id);
  }
  size_t copies() const {
    absl::MutexLock lock(&mu_);
    return copies_.size();
  }

 private:
  void Send(schedule::SessionId id, v1::SessionReply reply) override ABSL_NO_THREAD_SAFETY_ANALYSIS {
    Session& session = *sessions_.at(id);
    if (reply.has_copy_free()) {
      (reply.copy_free().lost() ? session.lost_ : session.free_).insert(reply.copy_free().claim());
    } else if (!session.late_.contains(reply.claimed().lease())) {
      session.claimed_[reply.claimed().lease()] = {reply.claimed().memory(), reply.claimed().offer()};
    } else if (reply.claimed().offer()) {
      ADD_FAILURE() << "a late answer that would have to be withdrawn";
    }
  }
  void End(schedule::SessionId, const absl::Status&) override {}
  void BeginFilling(const schedule::ExtentRef&, const schedule::Position&) override {}
  void Seal(const schedule::ExtentRef&, uint64_t) override {}
  void PartsReady() override {}
  void StreamClosed(schedule::StreamId) override {}

  mutable absl::Mutex mu_;
  schedule::DeviceCopies copies_ ABSL_GUARDED_BY(mu_){this};
  std::map<uint64_t, std::shared_ptr<Session>> sessions_ ABSL_GUARDED_BY(mu_);
  uint64_t last_lease_ ABSL_GUARDED_BY(mu_) = 100;
};

class SharingTest : public OnRuntime {
 protected:
  // One reader of the stream. Leave `assembler` to be closed before the rest goes.
  struct Reader {
    explicit Reader(SharingTest* test)
        : source(NumberedBatches(kSteps), 8), session(test->board_.Open()), queue(test->NewQueue()) {}

    MemorySource source;
    std::shared_ptr<Board::Session> session;
    OwnedQueue queue;
    std::unique_ptr<Assembler> assembler;
  };

  void SetUp() override {
    OnRuntime::SetUp();
    if (IsSkipped()) return;
    const absl::StatusOr<void*> memory = runtime_->AllocateExportable(1);
    if (absl::IsFailedPrecondition(memory.status())) GTEST_SKIP() << memory.status();
    runtime_->Free(*memory);
  }

  std::unique_ptr<Reader> Open(const AssemblerOptions& options = {.depth = 3, .share = true}) {
    auto reader = std::make_unique<Reader>(this);
    BatchSource source = reader->source.Source();
    source.next = [next = source.next, raw = reader.get()](absl::Duration timeout) {
      absl::StatusOr<std::optional<Batch>> batch = next(timeout);
      if (batch.ok() && batch->has_value()) **batch = raw->session->Adopt(**batch);
      return batch;
    };
    absl::StatusOr<std::unique_ptr<Assembler>> assembler = Assembler::Open(runtime_, source, options);
    EXPECT_OK(assembler);
    reader->assembler = *std::move(assembler);
    return reader;
  }

  // The next batch; none at the end of an epoch.
  std::optional<DeviceBatch> Next(Reader& reader) {
    absl::StatusOr<std::optional<DeviceBatch>> batch = reader.assembler->Next(reader.queue.get(), absl::Seconds(30));
    EXPECT_OK(batch);
    return batch.ok() ? *std::move(batch) : std::nullopt;
  }

  // Whether the device has this step's bytes, as the reader's queue sees it.
  bool IsRight(const DeviceBatch& batch, Reader& reader) {
    const std::vector<TensorBytes>& want = batches_[batch.step()];
    for (size_t i = 0; i < want.size(); ++i) {
      const DeviceTensor& tensor = batch.tensors()[i];
      if (ToHost(reader.queue.get(), tensor.data, tensor.bytes) != want[i].bytes) return false;
    }
    return true;
  }

  void ReadEpoch(Reader& reader) {
    std::optional<DeviceBatch> held;
    for (int step = 0; step < kSteps; ++step) {
      std::optional<DeviceBatch> batch = Next(reader);
      ASSERT_TRUE(batch.has_value());
      EXPECT_TRUE(IsRight(*batch, reader)) << batch->epoch() << ":" << batch->step();
      held = std::move(batch);
    }
    EXPECT_FALSE(Next(reader).has_value());
  }

  void ExpectAllGivenBack(std::vector<std::unique_ptr<Reader>>& readers) {
    for (const auto& reader : readers) {
      reader->assembler.reset();
      EXPECT_EQ(reader->source.segment().leased(), 0u);
    }
    for (const auto& reader : readers) reader->session->End();
    EXPECT_EQ(board_.copies(), 0u);
  }

  const std::vector<std::vector<TensorBytes>> batches_ = NumberedBatches(kSteps);
  Board board_;
};
STOKER_ON_ALL_RUNTIMES(SharingTest);

TEST_P(SharingTest, TwoInStep_EachBatchIsUploadedOnce_MoreOrLess) {
  std::vector<std::unique_ptr<Reader>> readers;
  for (int i = 0; i < 2; ++i) readers.push_back(Open({.depth = 3, .share = true}));
  for (int epoch = 0; epoch < 5; ++epoch) {
    for (int step = 0; step <= kSteps; ++step) {
      for (const auto& reader : readers) {
        const std::optional<DeviceBatch> batch = Next(*reader);
        EXPECT_TRUE(!batch || IsRight(*batch, *reader)) << epoch << ":" << step;
      }
    }
  }
  const AssemblerReport a = readers[0]->assembler->report(), b = readers[1]->assembler->report();
  EXPECT_EQ(a.notice + b.notice, "");
  EXPECT_GE(4 * (a.borrowed_batches + b.borrowed_batches), a.batches + b.batches);
  ExpectAllGivenBack(readers);
}

TEST_P(SharingTest, Alone_UploadsAll_AndItsPlacesComeBack) {
  std::vector<std::unique_ptr<Reader>> readers;
  readers.push_back(Open());
  for (int epoch = 0; epoch < 4; ++epoch) ReadEpoch(*readers[0]);
  EXPECT_EQ(readers[0]->assembler->report().borrowed_batches, 0u);
  ExpectAllGivenBack(readers);
}

// What is held is looked at again after the others have gone on: nobody may have written over it.
TEST_P(SharingTest, ManyAtTheirOwnPace_WhatIsHeldStaysWhatItIs) {
  constexpr int kReaders = 4, kEpochs = 12;
  std::vector<std::unique_ptr<Reader>> readers;
  for (int i = 0; i < kReaders; ++i) readers.push_back(Open({.depth = 3 + i, .share = true}));
  std::vector<std::thread> threads;
  for (int i = 0; i < kReaders; ++i) {
    threads.emplace_back([this, i, reader = readers[i].get()] {
      std::mt19937 random(i);
      std::optional<DeviceBatch> held;
      for (int n = 0; n < kEpochs * (kSteps + 1); ++n) {
        std::optional<DeviceBatch> batch = Next(*reader);
        EXPECT_TRUE(!held || IsRight(*held, *reader)) << held->epoch() << ":" << held->step();
        EXPECT_TRUE(!batch || IsRight(*batch, *reader)) << batch->epoch() << ":" << batch->step();
        if (random() % 3 == 0) absl::SleepFor(absl::Microseconds(random() % 3000));
        held = std::move(batch);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  uint64_t borrowed = 0;
  for (const auto& reader : readers) borrowed += reader->assembler->report().borrowed_batches;
  EXPECT_GT(borrowed, 0u);
  ExpectAllGivenBack(readers);
}

TEST_P(SharingTest, OneThatHoldsABatchForEver_StopsNobody) {
  std::vector<std::unique_ptr<Reader>> readers;
  for (int i = 0; i < 3; ++i) readers.push_back(Open({.depth = 3, .share = true}));
  std::optional<DeviceBatch> held = Next(*readers[0]);
  const uint64_t step = held->step();
  for (int epoch = 0; epoch < 3; ++epoch) {
    ReadEpoch(*readers[1]);
    ReadEpoch(*readers[2]);
  }
  EXPECT_EQ(held->step(), step);
  EXPECT_TRUE(IsRight(*held, *readers[0]));
  held.reset();
  ExpectAllGivenBack(readers);
}

// It has all places of the other: one in hand, the rest ready.
TEST_P(SharingTest, OneThatStopsWithAllThatItBorrowed_StopsNobody) {
  std::vector<std::unique_ptr<Reader>> readers;
  for (int i = 0; i < 2; ++i) readers.push_back(Open({.depth = 3, .share = true}));
  ReadEpoch(*readers[0]);
  ReadEpoch(*readers[0]);
  ReadEpoch(*readers[1]);
  ReadEpoch(*readers[1]);
  ExpectAllGivenBack(readers);
}

TEST_P(SharingTest, NoMemoryForAnotherPlace_IsWaitedFor_NotAnError) {
  if (GetParam() != "host") GTEST_SKIP() << "fills the device";
  constexpr uint64_t kBytes = 8192;  // of a batch, nearly
  runtime_ = HostRuntime::Create({.memory_bytes = 6 * kBytes});
  std::vector<std::unique_ptr<Reader>> readers;
  for (int i = 0; i < 2; ++i) readers.push_back(Open({.depth = 3, .share = true}));
  const DeviceMemory rest(runtime_.get(),
                          *runtime_->Allocate(6 * kBytes - 2 * readers[0]->assembler->report().device_bytes));
  std::thread other([&] {
    absl::SleepFor(absl::Milliseconds(50));
    ReadEpoch(*readers[1]);
  });
  ReadEpoch(*readers[0]);
  ReadEpoch(*readers[0]);
  other.join();
  ExpectAllGivenBack(readers);
}

TEST_P(SharingTest, SessionThatEnds_LeavesItsCopiesToWhoReadsThem_AndItsPlacesGetOtherMemory) {
  std::vector<std::unique_ptr<Reader>> readers;
  for (int i = 0; i < 2; ++i) readers.push_back(Open({.depth = 6, .share = true}));
  std::vector<DeviceBatch> held;
  for (int i = 0; i < 3; ++i) {
    for (const auto& reader : readers) held.push_back(*Next(*reader));
  }
  // The first goes on, as after a restart of the daemon, and uploads for itself.
  readers[0]->session->End();
  for (int step = 3; step <= kSteps; ++step) (void)Next(*readers[0]);
  ReadEpoch(*readers[0]);
  for (size_t i = 0; i < held.size(); ++i) EXPECT_TRUE(IsRight(held[i], *readers[i % 2])) << i;
  held.clear();
  for (int step = 3; step <= kSteps; ++step) (void)Next(*readers[1]);
  for (int epoch = 0; epoch < 2; ++epoch) {
    ReadEpoch(*readers[0]);
    ReadEpoch(*readers[1]);
  }
  ExpectAllGivenBack(readers);
}

// As a session that the daemon ends: its process lives, and reads what it borrowed.
TEST_P(SharingTest, UsersSessionThatEnds_WhatItHoldsStaysWhatItIs) {
  std::vector<std::unique_ptr<Reader>> readers;
  for (int i = 0; i < 2; ++i) readers.push_back(Open({.depth = 6, .share = true}));
  std::vector<DeviceBatch> held[2];
  for (int i = 0; i < 3; ++i) {
    for (int reader = 0; reader < 2; ++reader) held[reader].push_back(*Next(*readers[reader]));
  }
  const int user = readers[0]->assembler->report().borrowed_batches > 0 ? 0 : 1;
  Reader& other = *readers[1 - user];
  EXPECT_GT(readers[user]->assembler->report().borrowed_batches, 0u);
  readers[user]->session->End();
  held[1 - user].clear();
  for (int step = 3; step <= kSteps; ++step) (void)Next(other);
  for (int epoch = 0; epoch < 3; ++epoch) ReadEpoch(other);
  for (const DeviceBatch& batch : held[user]) EXPECT_TRUE(IsRight(batch, *readers[user])) << batch.step();
  held[user].clear();
  ExpectAllGivenBack(readers);
}

TEST_P(SharingTest, ClosedAssembler_LeavesItsCopiesToWhoReadsThem) {
  std::vector<std::unique_ptr<Reader>> readers;
  for (int i = 0; i < 2; ++i) readers.push_back(Open({.depth = 6, .share = true}));
  std::vector<DeviceBatch> held;
  for (int i = 0; i < 4; ++i) {
    held.push_back(*Next(*readers[1]));
    (void)Next(*readers[0]);
  }
  EXPECT_GT(readers[0]->assembler->report().borrowed_batches + readers[1]->assembler->report().borrowed_batches, 0u);
  readers[0]->assembler.reset();
  for (const DeviceBatch& batch : held) EXPECT_TRUE(IsRight(batch, *readers[1])) << batch.step();
  held.clear();
  for (int step = 4; step <= kSteps; ++step) (void)Next(*readers[1]);
  ReadEpoch(*readers[1]);
  ExpectAllGivenBack(readers);
}

TEST_P(SharingTest, BorrowedBatch_KeepsItsLeaseUntilItsUseHasEnded) {
  std::vector<std::unique_ptr<Reader>> readers;
  for (int i = 0; i < 2; ++i) readers.push_back(Open({.depth = 6, .share = true}));
  while (readers[0]->assembler->report().borrowed_batches + readers[1]->assembler->report().borrowed_batches == 0) {
    (void)Next(*readers[0]);
    (void)Next(*readers[1]);
  }
  for (const auto& reader : readers) {
    reader->assembler->Close();  // with all that was borrowed
    EXPECT_TRUE(reader->source.segment().AwaitLeased(0));
  }
  ExpectAllGivenBack(readers);
}

// ---- others that do not keep their word

TEST_P(SharingTest, UploadThatNeverComes_IsWaitedForAWhile_AndDoneHere) {
  const auto other = board_.Open();
  MemorySource source(batches_, 2);
  const Batch first = other->Adopt(**source.Source().next(absl::Seconds(1)));
  ASSERT_TRUE(other->Claim(first.data()->lease(), runtime_->info().id, true, absl::InfiniteFuture())->offer);
  std::vector<std::unique_ptr<Reader>> readers;
  readers.push_back(Open());
  ReadEpoch(*readers[0]);
  EXPECT_THAT(readers[0]->assembler->report().notice, HasSubstr("uploaded here too"));
  other->End();
  ExpectAllGivenBack(readers);
}

TEST_P(SharingTest, MemoryThatCannotBeMapped_TheBatchIsUploadedHere) {
  for (const char* memory : {"nonsense", "stoker.gpu.0123456789abcdef/0 1000000", "stoker.gpu.0123456789abcdef/0 1"}) {
    const auto other = board_.Open();
    MemorySource source(batches_, 2);
    const Batch first = other->Adopt(**source.Source().next(absl::Seconds(1)));
    ASSERT_TRUE(other->Claim(first.data()->lease(), runtime_->info().id, true, absl::InfiniteFuture())->offer);
    other->Offer(first.data()->lease(), memory);
    std::vector<std::unique_ptr<Reader>> readers;
    readers.push_back(Open());
    ReadEpoch(*readers[0]);
    EXPECT_EQ(readers[0]->assembler->report().borrowed_batches, 0u);
    EXPECT_THAT(readers[0]->assembler->report().notice, HasSubstr("uploaded here too"));
    readers[0]->assembler.reset();
    readers[0]->session->End();
    other->End();
  }
}

TEST_P(SharingTest, WithAnAllocator_IsRefused) {
  Reader reader(this);
  const DeviceAllocator allocator = {[](uint64_t) { return nullptr; }, [](void*) {}};
  EXPECT_THAT(Assembler::Open(runtime_, reader.source.Source(), {.allocator = allocator, .share = true}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("share")));
}

// ---- the way of descriptors

TEST(MemoryServer, HandsOutWhatWasAdded_UntilItIsRemoved) {
  ASSERT_OK_AND_ASSIGN(std::unique_ptr<MemoryServer> server, MemoryServer::Start());
  const std::string first = server->Add(UniqueFd(::open("/dev/null", O_RDONLY)));
  const std::string second = server->Add(UniqueFd(::open("/dev/zero", O_RDONLY)));
  ASSERT_OK_AND_ASSIGN(const UniqueFd fetched, FetchMemory(second, absl::Seconds(10)));
  char byte = 1;
  EXPECT_EQ(::read(fetched.get(), &byte, 1), 1);
  EXPECT_EQ(byte, 0);
  server->Remove(second);
  EXPECT_THAT(FetchMemory(second, absl::Seconds(10)), StatusIs(absl::StatusCode::kNotFound, HasSubstr("any more")));
  EXPECT_OK(FetchMemory(first, absl::Seconds(10)));
  server.reset();
  EXPECT_THAT(FetchMemory(first, absl::Seconds(10)), StatusIs(absl::StatusCode::kNotFound, HasSubstr("gone")));
}

TEST(MemoryServer, ManyAtOnce) {
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<MemoryServer> server, MemoryServer::Start());
  const std::string address = server->Add(UniqueFd(::open("/dev/null", O_RDONLY)));
  std::vector<std::thread> threads;
  std::atomic<int> fetched = 0;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < 20; ++n) fetched += FetchMemory(address, absl::Seconds(20)).ok() ? 1 : 0;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(fetched, 160);
}

}  // namespace
}  // namespace stoker::gpu
