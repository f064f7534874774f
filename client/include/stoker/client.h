// SPDX-License-Identifier: Apache-2.0
// A connection to stokerd.
//
//   absl::StatusOr<stoker::Client> client = stoker::Client::Connect();
//   if (!client.ok()) return client.status();
//   stoker::LoaderOptions options;
//   options.dataset = "sahu";
//   options.plan.set_batch_size(64);
//   absl::StatusOr<stoker::Loader> loader = client->Open(options);
//
// Ownership: a Loader goes on living when its Client is gone. Threads: all members may be called from any threads at
// the same time. Calls block until the daemon answers, at most ConnectOptions::timeout unless said otherwise, and then
// return DeadlineExceeded. Unavailable: nobody answers there, nor did within half a second. Other codes are the
// daemon's: stoker/v1/service.proto.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "stoker/loader.h"
#include "stoker/v1/service.pb.h"

namespace stoker {

struct ConnectOptions {
  // A socket's path, unix:PATH or HOST:PORT. Empty: $STOKER_ADDRESS, else the system daemon's socket
  // /run/stoker/stoker.sock if somebody answers there, else the user's own (shared/base/paths.h).
  std::string address = {};
  absl::Duration timeout = absl::Seconds(10);
};

// Stops a call from another thread; may be used for one call. Thread-safe.
class Cancellation {
 public:
  void Cancel();

 private:
  friend class Client;
  void Attach(std::function<void()> stop);
  void Detach();

  absl::Mutex mu_;
  bool cancelled_ ABSL_GUARDED_BY(mu_) = false;
  std::function<void()> stop_ ABSL_GUARDED_BY(mu_);
};

class Client {
 public:
  // Unavailable, naming the path and the remedy, when nobody answers there; PermissionDenied when the socket may not be
  // used.
  static absl::StatusOr<Client> Connect(const ConnectOptions& options = {});

  // Whether a service is SERVING; "" is the daemon as a whole. NotFound for a service that it does not have.
  absl::StatusOr<bool> Health(absl::string_view service = "") const;

  absl::StatusOr<v1::StatusReply> GetStatus() const;
  // Calls `callback` at once and every `interval` after, on the caller's thread, until it returns false (then OK) or
  // the stream ends (then the reason).
  absl::Status WatchStatus(absl::Duration interval, const std::function<bool(const v1::StatusReply&)>& callback) const;

  // Makes a data set, or finds that it is made already. Blocks as long as that takes; `progress` is called on this
  // thread. Cancelled after `cancellation`; asking again goes on where it was.
  absl::StatusOr<v1::IngestEvent::Done> Ingest(
      const v1::IngestRequest& request, const std::function<void(const v1::IngestEvent::Progress&)>& progress = nullptr,
      Cancellation* cancellation = nullptr) const;

  // All data sets by name; with a name only that one, NotFound if there is none.
  absl::StatusOr<std::vector<v1::DatasetInfo>> Datasets(absl::string_view name = "") const;
  absl::StatusOr<v1::DropDatasetReply> Drop(absl::string_view name) const;

  // Opens a stream; blocks at most options.open_timeout.
  absl::StatusOr<Loader> Open(const LoaderOptions& options) const;

  const std::string& address() const;  // that was connected to

 private:
  explicit Client(std::shared_ptr<client::Connection> connection);
  std::shared_ptr<client::Connection> connection_;
};

}  // namespace stoker
