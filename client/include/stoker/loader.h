// SPDX-License-Identifier: Apache-2.0
// Reads the batches of one stream in order, epoch after epoch.
//
//   for (uint64_t epoch = 0; epoch < 10; ++epoch) {
//     while (true) {
//       absl::StatusOr<std::optional<stoker::Batch>> batch = loader.Next();
//       if (!batch.ok()) return batch.status();
//       if (!batch->has_value()) break;  // the epoch is over; the following Next() begins the next one
//       Train(**batch);
//     }
//     Save(loader.SaveState());
//   }
//
// A reader thread maps batches ahead, so that Next() on a ready batch takes microseconds and makes no call. When the
// stream breaks, because the daemon was restarted or killed, Next() connects again by itself and goes on at the exact
// next batch with the same bytes; batches in the user's hands stay readable (Batch::Check tells of the rare exception).
//
// Errors of Next(), and what to do: DeadlineExceeded: `timeout` passed, call again · ResourceExhausted: more batches
// are held than the session may, drop some; or the daemon lacks memory · Unavailable: no daemon came back within
// reconnect_timeout; calling again tries again · FailedPrecondition: the data set is another one than at Open ·
// InvalidArgument, DataLoss: this batch cannot be made of the data · Cancelled: closed · OutOfRange: all epochs are
// read. After an error the position is unchanged.
//
// Threads: Next, SetEpoch and LoadState on one thread at a time; Close, position, SaveState, transport and notice on
// any thread at any time. Do not fork while a loader is open, unless it is paused: open one in the child.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "stoker/batch.h"
#include "stoker/v1/plan.pb.h"
#include "stoker/v1/recipe.pb.h"
#include "stoker/v1/service.pb.h"

namespace stoker {

namespace client {
class Connection;
class LoaderImpl;
}  // namespace client

enum class Transport {
  kAuto,    // shared memory, and inline where a segment cannot be mapped
  kShm,     // shared memory or an error
  kInline,  // batches come over the socket
};

struct LoaderOptions {
  static constexpr int kAutomaticPrefetch = -1;

  std::string dataset = {};
  v1::Recipe recipe = {};
  v1::Plan plan = {};
  v1::Position start = {};  // of the first batch
  uint64_t epochs = 0;      // how many from start.epoch on; 0: endless

  // Batches asked for ahead of Next(). Automatic: 128 MiB of them, but 8 to 32, an epoch if that is more than 8, and a
  // quarter of what the arena has room for, or 4; of those larger than 256 MiB 2. 0 asks for a batch only when Next()
  // waits for it.
  int prefetch = kAutomaticPrefetch;
  Transport transport = Transport::kAuto;
  absl::Duration open_timeout = absl::Seconds(60);
  absl::Duration reconnect_timeout = absl::Seconds(60);  // without progress; zero: never connect again
  // Who does not call Next() for so long gives back what was read ahead, for others may need the room. Where nobody did
  // it is there again at once. When others do wait for room, who does not call for twice as long as usual, from 50 to
  // 500 ms, gives it back then. From 10 ms on.
  absl::Duration give_back_after = absl::Seconds(5);
};

class Loader {
 public:
  Loader(Loader&&) noexcept;
  Loader& operator=(Loader&&) noexcept;
  ~Loader();  // Close()

  // The next batch, or nullopt once at the end of each epoch. Blocks until there is one, until `timeout` has passed or
  // until Close.
  absl::StatusOr<std::optional<Batch>> Next(absl::Duration timeout = absl::InfiniteDuration());

  // What the daemon said at Open: samples, schema with shapes of a full batch, classes, digests, lease limit.
  const v1::SessionReply::Opened& info() const;
  uint64_t steps_per_epoch() const;          // of this rank in the epoch of position(), exact
  std::vector<std::string> classes() const;  // labels; a class id is the place in this list

  // Of the batch that Next() would return: counts what was yielded, not what was prefetched. At the end of an epoch,
  // before nullopt was returned: (epoch, steps_per_epoch()); after it: (epoch + 1, 0).
  v1::Position position() const;

  // The following Next() begins epoch `epoch`. Does nothing when it would anyway. The session goes on: batches that are
  // held keep their leases, those that were prefetched go back. With a budget, where epochs differ in
  // steps, this and LoadState ask the daemon: they block at most options.open_timeout, or until another daemon is there
  // as Next() does, and may fail as Open does; then the position is unchanged.
  absl::Status SetEpoch(uint64_t epoch);

  // The position and what it is a position in, as JSON of less than 1 KB. LoadState goes on there: InvalidArgument when
  // `json` is no such state, FailedPrecondition naming what differs when it is of another data set, recipe or order.
  // Another world size is accepted if batch size times world is the same.
  std::string SaveState() const;
  std::string SaveState(const v1::Position& at) const;  // of who reads ahead, as gpu::Assembler does
  absl::Status LoadState(absl::string_view json);

  std::string transport() const;  // "shm" or "inline"; "none" before the first batch arrived
  std::string notice() const;     // why batches come inline or are copies, if unasked; else empty

  // Ends the session, unless batches of it are held: then false. The following Next() opens another and goes on at the
  // same position. For a process that is about to fork: gRPC can be used in the child only if no thread of the parent
  // was inside it, so when OpenSessions() is 0 and no other call is being made. REQUIRES: no Next() at the same time.
  bool Pause();
  static uint64_t OpenSessions();  // of this process; a closed loader's lives as long as batches of it are held

  // Ends the session and wakes a Next() that waits. Batches that are held stay readable and keep their leases. May be
  // called twice.
  void Close();

 private:
  friend class Client;
  explicit Loader(std::shared_ptr<client::LoaderImpl> impl);
  std::shared_ptr<client::LoaderImpl> impl_;
};

}  // namespace stoker
