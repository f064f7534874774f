// SPDX-License-Identifier: Apache-2.0
// The daemon: the one owner of all parts. Starts them in order, serves, and takes them down.
//
//   STOKER_ASSIGN_OR_RETURN(std::unique_ptr<Daemon> daemon, Daemon::Start(options));
//   ... until a signal comes ...
//   daemon->Stop();
#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/synchronization/mutex.h"
#include "server/arena/arena.h"
#include "server/config.h"
#include "server/engine.h"
#include "server/ingest/catalog.h"
#include "server/loop/event_loop.h"
#include "server/rpc/core.h"
#include "server/rpc/keep_awake.h"
#include "server/rpc/lane.h"
#include "server/rpc/service.h"
#include "server/socket_lock.h"
#include "server/workers/unit_runner.h"

namespace stoker {

class Daemon : private rpc::Core {
 public:
  // Returns when clients can connect; health turns to SERVING, and `on_serving` is called on some thread, once the
  // arena is prefaulted. Errors: FailedPrecondition when another daemon has the socket, ResourceExhausted or
  // PermissionDenied when an arena of the size asked for cannot be had, others as the parts have them. Nothing is left
  // behind on failure.
  static absl::StatusOr<std::unique_ptr<Daemon>> Start(const DaemonOptions& options, std::function<void()> on_serving);
  ~Daemon() override;

  // Drains: no new sessions, health NOT_SERVING, sessions end with Unavailable, calls in flight have until the drain
  // deadline. Afterwards nothing of it is in /dev/shm. Once; blocks.
  void Stop();

  // Grows as long as the event loop turns; for the watchdog.
  uint64_t turns() const { return loop_.turns(); }

 private:
  explicit Daemon(const DaemonOptions& options);

  absl::Status StartArena();
  absl::Status StartArenaWithoutShm(const absl::Status& why);
  absl::Status StartServer();
  absl::Status StartLanes();
  absl::Status FinishSocket(const std::string& path) const;
  void Prefault(const std::function<void()>& on_serving);
  void Notice(const std::string& text);
  absl::Status WaitForTurn(const std::string& name, const std::function<bool()>& cancelled);

  // rpc::Core
  v1::StatusReply GetStatus() override;
  absl::StatusOr<v1::IngestEvent::Done> Ingest(const v1::IngestRequest& request,
                                               const std::function<void(const v1::IngestEvent::Progress&)>& progress,
                                               const std::function<bool()>& cancelled) override;
  absl::StatusOr<std::vector<v1::DatasetInfo>> ListDatasets(const std::string& name) override;
  absl::StatusOr<bool> DropDataset(const std::string& name) override;
  void OpenSession(std::shared_ptr<rpc::SessionPeer> peer, const v1::SessionRequest::Open& request) override;
  void HandleRequest(std::shared_ptr<rpc::SessionPeer> peer, v1::SessionRequest request) override;
  void HandleOnLoop(rpc::SessionPeer* peer, const v1::SessionRequest& request) override;
  void CloseSession(std::shared_ptr<rpc::SessionPeer> peer) override;
  absl::StatusOr<std::unique_ptr<rpc::PinnedBatch>> PinBatch(const v1::FetchRequest& request) override;

  // On the loop.
  absl::StatusOr<Engine::Request> FindDataset(const v1::SessionRequest::Open& request);
  absl::Status PrepareBatches(Engine::Request* request);
  void PutDataset(const ingest::IngestResult& result);
  absl::StatusOr<bool> Drop(const std::string& name);
  void RemoveOutdatedStores();

  const DaemonOptions options_;
  const std::string instance_id_;
  const absl::Time started_;
  std::optional<SocketLock> socket_lock_;
  std::atomic<bool> stopping_{false};
  std::atomic<bool> serving_{false};

  absl::Mutex mutex_;
  std::vector<std::string> notices_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_set<std::string> ingesting_ ABSL_GUARDED_BY(mutex_);  // names

  // The loop's; destroyed in reverse.
  std::unique_ptr<arena::Arena> arena_;
  loop::EventLoop loop_;
  std::optional<ingest::DatasetCatalog> catalog_;
  absl::flat_hash_set<std::string> outdated_stores_;  // no name stands for them, but streams may read them
  std::unique_ptr<rpc::LaneListener> lanes_;          // null: there are none
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<workers::PoolUnitRunner> unit_runner_;
  std::thread loop_thread_;

  rpc::Service service_;
  std::unique_ptr<grpc::Server> server_;
  std::optional<rpc::KeepAwake> keep_awake_;
  std::thread prefault_thread_;
};

}  // namespace stoker
