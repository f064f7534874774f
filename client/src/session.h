// SPDX-License-Identifier: Apache-2.0
// One Session call: a reader thread that turns replies into mapped batches, a queue of them, and a writer thread that
// hands back credits and leases. Seek goes on at another place within the session. A session ends once and for all;
// Loader opens another.
//
// Credits: as many batches are asked for as the prefetch depth, less those queued. A credit is given back when a batch
// is taken from the queue, a lease when the last holder of the batch lets go. Both are gathered into one message, which
// is written when half of the depth has gathered, or after kLinger, for a message takes processor time of both sides
// that the making of batches could use. Where the arena has room for few batches it is written at once. The writer
// thread writes it, except that a Next() that has to wait does it itself: one wake-up less on the way to a cold batch.
//
// Over a Unix socket the messages soon go by the session's lane, a socket of its own (service.proto, LaneHello), for
// gRPC wakes both sides several times a message. The end still comes by the stream, and so does a Seek in a plan by
// budget; numbers keep the order.
//
// Once a batch was mapped, the daemon announces those that follow while it makes them, several in a message. Next()
// waits for the sequence in the extent's header, so that a batch gets from a worker to the user without a message.
//
// After a Seek, what the daemon says is of the place before until it says Sought, once for each Seek that was written:
// till then leases go back unseen, and errors tell nothing of the new place.
//
// Who would hold more leases than the daemon lets each session keep while it waits gets a copy of the batch, and its
// lease goes back: readers that each keep some of a small arena would wait for room for ever.
//
// When the first of the queue is there and nobody asks for it, the queue is given back after a while by a Seek to where
// it begins, without credits: the batches stay in the arena until somebody needs their room. Once the daemon has said
// that others wait for room, the while is twice what the user usually takes from one batch to the next.
//
// Thread-safe. Lock order: write_mu_ before mu_.
#pragma once

#include <grpcpp/grpcpp.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "client/src/batch_data.h"
#include "client/src/connection.h"
#include "client/src/segment_cache.h"
#include "shared/channel/channel.h"
#include "stoker/loader.h"
#include "stoker/v1/service.grpc.pb.h"

namespace stoker::client {

struct SessionOptions {
  v1::SessionRequest::Open open;  // credits are filled in
  int prefetch = LoaderOptions::kAutomaticPrefetch;
  Transport transport = Transport::kAuto;
  bool announce = true;  // batches may come before they are sealed
  absl::Duration give_back_after = absl::InfiniteDuration();
};

class Session : public LeaseOwner, public std::enable_shared_from_this<Session> {
 public:
  // Begins to open; does not block. `segments` is used by this session's reader thread only. ResourceExhausted when
  // there are no threads to be had.
  static absl::StatusOr<std::shared_ptr<Session>> Start(std::shared_ptr<Connection> connection, SessionOptions options,
                                                        std::shared_ptr<SegmentCache> segments);
  ~Session() override;  // ends the call; REQUIRES: not on the reader thread, which never holds a reference

  // What the daemon answered, with the steps of the epoch that it is at: after a Seek, of that one. DeadlineExceeded at
  // `deadline`, Cancelled after Stop, else why the session ended.
  absl::StatusOr<v1::SessionReply::Opened> WaitOpened(absl::Time deadline);

  // A batch, or the end of an epoch and how many steps the following one has.
  struct Step {
    std::shared_ptr<const BatchData> batch;  // null: end of an epoch
    uint64_t next_steps = 0;
  };
  // DeadlineExceeded, Cancelled after Stop, ResourceExhausted when the user holds all the leases there are; else why
  // the session ended.
  absl::StatusOr<Step> Next(absl::Time deadline);

  // LeaseOwner
  void Release(uint64_t lease) override;
  absl::StatusOr<Claimed> Claim(uint64_t lease, const std::string& device, bool may_offer,
                                absl::Time deadline) override;
  void Offer(uint64_t claim, const std::string& memory) override;
  void Withdraw(uint64_t claim) override;
  absl::StatusOr<bool> IsFree(uint64_t claim) override;

  void SetPrefetch(int prefetch);  // >= 0

  // The following Next() is of `position`, which the plan must have: else the session ends with InvalidArgument. Gives
  // back what is queued; batches that are held stay. False when the session has ended, and then does nothing.
  bool Seek(const v1::Position& position);

  // Gives back what is queued, wakes who waits. Leases that are held stay until they are released.
  void Stop();

  struct End {
    bool ended = false;
    bool lost = false;     // the stream broke or the daemon goes away: another session may go on
    uint64_t dropped = 0;  // batches that were queued then, and are no longer leased
    bool seeking = false;  // it had not come to the place of the last Seek: another session may
  };
  End end() const;

  uint64_t held() const;    // leases that the user holds
  static uint64_t alive();  // sessions of this process: each has threads inside gRPC

  std::string transport() const;
  std::string notice() const;

 private:
  Session(std::shared_ptr<Connection> connection, SessionOptions options, std::shared_ptr<SegmentCache> segments);

  static uint64_t FirstDepth(int prefetch);

  void RunReader();  // session_reader.cc, with all that it calls
  void RunWriter();
  void Flush();  // writes what is pending
  void Write(v1::SessionRequest& request);
  void WriteLocked(v1::SessionRequest& request) ABSL_EXCLUSIVE_LOCKS_REQUIRED(write_mu_);

  // Of the reader thread. A status that is not OK ends the session.
  bool Take(v1::SessionReply& reply);     // false: the session has ended, or is cancelled
  absl::StatusOr<uint64_t> AttachLane();  // after so many replies by the stream its replies come
  void ReadLane();
  absl::Status HandleReply(v1::SessionReply& reply);
  absl::Status HandleOpened(v1::SessionReply::Opened& opened);
  absl::Status HandleReady(v1::SessionReply::Ready& ready);
  absl::Status HandleEndOfEpoch(const v1::SessionReply::EndOfEpoch& end);
  void HandleClaimed(v1::SessionReply::Claimed& claimed);
  void HandleCopyFree(const v1::SessionReply::CopyFree& free);
  absl::Status HandleSought(const v1::SessionReply::Sought& sought);
  absl::StatusOr<std::shared_ptr<BatchData>> Receive(v1::BatchDescriptor& descriptor, uint64_t lease);
  absl::StatusOr<std::shared_ptr<BatchData>> Fetch(v1::BatchDescriptor& descriptor, uint64_t lease);
  void SetEnd(absl::Status status, bool lost);

  bool SeekingLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);   // what comes is of the place before
  bool AnnounceLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);  // what comes may not be sealed yet
  void KeepCopyLocked(std::shared_ptr<BatchData> copy) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void DropQueueLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void SeekLocked(const v1::Position& position) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Duration GiveBackAfterLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void GiveBackIfIdleLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void WakeForMakingLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);  // who waits for the first of the queue
  void FillRequestLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(write_mu_, mu_);
  void GrantLocked(uint64_t depth) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ReleaseLocked(uint64_t lease) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool PendingLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);  // something is to be written
  bool DueLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);      // at once
  void WakeWriterLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);     // after a change of what is pending

  struct Item {
    std::shared_ptr<BatchData> batch;  // null: end of an epoch
    uint64_t lease = 0;
    bool leased = false;
    uint64_t next_steps = 0;  // at the end of an epoch

    BatchData::State state() const { return batch == nullptr ? BatchData::State::kSealed : batch->state(); }
  };

  const std::shared_ptr<Connection> connection_;
  const SessionOptions options_;
  const std::shared_ptr<SegmentCache> segments_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::SessionRequest, v1::SessionReply>> stream_;  // set before opened_

  // Of the reader thread alone.
  bool inline_ = false;
  v1::Position expected_;
  uint64_t steps_ = 0;  // of the epoch of expected_

  // The lane: opened by the reader thread, which reads from it, and closed with the session. Shut down to wake who is
  // in it.
  std::optional<Channel> lane_;

  absl::Mutex write_mu_;
  v1::SessionRequest request_ ABSL_GUARDED_BY(write_mu_);
  uint64_t written_ ABSL_GUARDED_BY(write_mu_) = 0;  // requests after Open
  bool by_lane_ ABSL_GUARDED_BY(write_mu_) = false;  // from now on

  mutable absl::Mutex mu_ ABSL_ACQUIRED_AFTER(write_mu_);
  absl::CondVar changed_;  // queue_, opened_, stopped_, end_
  absl::CondVar claimed_;  // claims_, end_
  absl::CondVar pending_;  // for the writer: something is pending that it does not wait for, or is due, or quit_
  bool is_open_ ABSL_GUARDED_BY(mu_) = false;
  v1::SessionReply::Opened opened_ ABSL_GUARDED_BY(mu_);  // steps_per_epoch: of the place last come to
  v1::Position target_ ABSL_GUARDED_BY(mu_);              // of the last Seek
  bool seek_pending_ ABSL_GUARDED_BY(mu_) = false;        // it is not written yet
  uint64_t seeks_ ABSL_GUARDED_BY(mu_) = 0;               // that are written and not answered
  std::deque<Item> queue_ ABSL_GUARDED_BY(mu_);
  v1::Position next_ ABSL_GUARDED_BY(mu_);         // of what Next() gives
  int in_next_ ABSL_GUARDED_BY(mu_) = 0;           // threads
  absl::Time asked_ ABSL_GUARDED_BY(mu_);          // when the last one left
  bool in_epoch_ ABSL_GUARDED_BY(mu_) = false;     // it left with a batch
  absl::Duration pause_ ABSL_GUARDED_BY(mu_);      // the longest of late between a batch and the next call
  bool room_wanted_ ABSL_GUARDED_BY(mu_) = false;  // by others
  uint64_t queued_batches_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t held_ ABSL_GUARDED_BY(mu_) = 0;               // leases that the user holds
  uint64_t may_keep_ ABSL_GUARDED_BY(mu_) = UINT64_MAX;  // of them, while he waits for more
  uint64_t depth_ ABSL_GUARDED_BY(mu_) = 0;              // of prefetch
  uint64_t granted_ ABSL_GUARDED_BY(mu_) = 0;            // credits that have not come back as a batch
  uint64_t pending_credits_ ABSL_GUARDED_BY(mu_) = 0;
  std::vector<uint64_t> pending_releases_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<uint64_t, std::optional<Claimed>> claims_ ABSL_GUARDED_BY(mu_);  // that are waited for
  enum class Copy { kUsed, kFree, kLost };
  absl::flat_hash_map<uint64_t, Copy> withdrawn_ ABSL_GUARDED_BY(mu_);
  bool lingering_ ABSL_GUARDED_BY(mu_) = false;  // the writer looks again within kLinger
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;
  bool quit_ ABSL_GUARDED_BY(mu_) = false;
  int lane_fd_ ABSL_GUARDED_BY(mu_) = -1;
  End end_ ABSL_GUARDED_BY(mu_);
  absl::Status end_status_ ABSL_GUARDED_BY(mu_);
  std::string transport_ ABSL_GUARDED_BY(mu_) = "none";
  std::string notice_ ABSL_GUARDED_BY(mu_);
  grpc::ClientContext* fetch_ ABSL_GUARDED_BY(mu_) = nullptr;

  std::thread reader_;
  std::thread writer_;
};

}  // namespace stoker::client
