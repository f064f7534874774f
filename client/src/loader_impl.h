// SPDX-License-Identifier: Apache-2.0
// The state of a Loader: where it is, the session it reads from, and how it gets another one. Threads as in loader.h.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "client/src/connection.h"
#include "client/src/loader_state.h"
#include "client/src/session.h"
#include "stoker/loader.h"

namespace stoker::client {

class LoaderImpl {
 public:
  // Opens the first session; tries once.
  static absl::StatusOr<std::shared_ptr<LoaderImpl>> Open(std::shared_ptr<Connection> connection,
                                                          const LoaderOptions& options);

  absl::StatusOr<std::optional<Batch>> Next(absl::Duration timeout);
  const v1::SessionReply::Opened& info() const { return info_; }
  v1::Position position() const;
  uint64_t steps_per_epoch() const;
  absl::Status SetEpoch(uint64_t epoch);
  std::string SaveState(const v1::Position& at) const;
  absl::Status LoadState(absl::string_view json);
  std::string transport() const;
  std::string notice() const;
  bool Pause();
  void Close();

 private:
  LoaderImpl(std::shared_ptr<Connection> connection, const LoaderOptions& options);

  // The session to read from; starts one at position() when there is none. Cancelled when closed.
  absl::StatusOr<std::shared_ptr<Session>> CurrentSession();
  // Waits until it is open, and checks that it reads what the first one did.
  absl::Status AwaitOpen(Session& session, absl::Time deadline);
  // What to do about an error: OK to try again, else what to tell the user.
  absl::Status AfterError(const std::shared_ptr<Session>& session, const absl::Status& status, absl::Time deadline);
  std::string LostDaemon() const;  // the beginning of messages
  absl::Status WaitForDaemon(const absl::Status& reason, absl::Time deadline);
  absl::Status CheckUnchanged(const v1::SessionReply::Opened& opened) const;
  bool Serving() const;  // whether the daemon says that it serves
  std::optional<Batch> Yield(const std::shared_ptr<Session>& session, Session::Step next);
  bool IsClosed() const;
  absl::Status CheckMore() const;  // OutOfRange when all epochs are read
  void DropSession();
  absl::Status MoveTo(const v1::Position& position);
  void JumpTo(const v1::Position& position);
  absl::Status AwaitPlace();  // until the daemon has said that it is there
  LoaderState StateAt(const v1::Position& position) const;

  const std::shared_ptr<Connection> connection_;
  const LoaderOptions options_;
  const uint64_t end_epoch_;  // 0: endless
  const std::shared_ptr<SegmentCache> segments_;
  v1::SessionReply::Opened info_;  // of the first session; not changed afterwards

  // Of the thread that calls Next.
  bool is_open_ = false;  // the session is, and has been checked
  absl::Time open_by_;
  absl::Time lost_since_ = absl::InfiniteFuture();  // the first loss after the last batch
  absl::Duration backoff_;
  uint64_t careful_ = 0;  // batches to ask for one by one, because one of them cannot be made

  mutable absl::Mutex mu_;
  absl::CondVar closing_;
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
  v1::Position position_ ABSL_GUARDED_BY(mu_);
  uint64_t steps_ ABSL_GUARDED_BY(mu_) = 0;  // of the epoch of position_
  std::shared_ptr<Session> session_ ABSL_GUARDED_BY(mu_);
  std::string transport_ ABSL_GUARDED_BY(mu_) = "none";  // of the session before
  std::string notice_ ABSL_GUARDED_BY(mu_);
};

}  // namespace stoker::client
