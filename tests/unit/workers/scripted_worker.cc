// SPDX-License-Identifier: Apache-2.0
// A worker that does what a task's `source` says: well, badly, or not at all. Speaks the protocol of stoker-worker.
//
//   fine             done                        refuse    done, with an error
//   what-is-known    done, with an error that lists mapped segments and open streams
//   progress N       N reports of progress, half a second apart, then done
//   die              exit status 7               hang      no answer
//   rubbish          bytes that are no message   nothing   a message of no kind
//   other            the answer to another task
//
// With STOKER_SCRIPTED_SILENT in the environment it does not even say that it is ready.
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <set>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "shared/channel/channel.h"
#include "stoker/v1/worker.pb.h"

namespace stoker::workers {
namespace {

class ScriptedWorker {
 public:
  void Run() {
    if (::getenv("STOKER_SCRIPTED_SILENT") != nullptr) Hang();
    v1::FromWorker ready;
    ready.mutable_ready();
    (void)channel_.Send(ready);
    while (true) {
      auto received = channel_.Receive();
      v1::ToWorker message;
      if (!received.ok() || !message.ParseFromString((*received)->bytes)) return;
      if (message.has_map_segment()) segments_.insert(message.map_segment().segment());
      if (message.has_unmap_segment()) segments_.erase(message.unmap_segment().segment());
      if (message.has_open_stream()) streams_.insert(message.open_stream().stream());
      if (message.has_close_stream()) streams_.erase(message.close_stream().stream());
      if (message.has_ingest_unit()) Do(message.ingest_unit().unit(), message.ingest_unit().source());
    }
  }

 private:
  [[noreturn]] static void Hang() {
    while (true) ::pause();
  }
  void Answer(uint64_t unit, const absl::Status& status = absl::OkStatus()) {
    v1::FromWorker answer;
    answer.mutable_unit_done()->set_unit(unit);
    answer.mutable_unit_done()->mutable_status()->set_code(static_cast<int>(status.code()));
    answer.mutable_unit_done()->mutable_status()->set_message(std::string(status.message()));
    (void)channel_.Send(answer);
  }
  void Do(uint64_t unit, const std::string& what) {
    if (what == "die") ::_exit(7);
    if (what == "hang") Hang();
    if (what == "rubbish") return (void)::send(channel_.fd(), "\xff\xff\xff", 3, 0);
    if (what == "nothing") {  // an unknown field, so that the packet is not empty
      const char unknown_field[] = {0x78, 0x01};
      return (void)::send(channel_.fd(), unknown_field, sizeof(unknown_field), 0);
    }
    if (what == "other") return Answer(unit + 1);
    if (what == "refuse") return Answer(unit, absl::InvalidArgumentError("a.ts:3: no"));
    if (what == "what-is-known") {
      return Answer(unit, absl::AbortedError(absl::StrCat("segments ", absl::StrJoin(segments_, ","), " streams ",
                                                          absl::StrJoin(streams_, ","))));
    }
    if (absl::StartsWith(what, "progress ")) {
      for (int i = std::stoi(what.substr(9)); i > 0; --i) {
        absl::SleepFor(absl::Milliseconds(500));
        v1::FromWorker report;
        report.mutable_unit_progress()->set_unit(unit);
        report.mutable_unit_progress()->set_bytes_done(static_cast<uint64_t>(i));
        (void)channel_.Send(report);
      }
    }
    Answer(unit);
  }

  Channel channel_{UniqueFd(3)};
  std::set<uint32_t> segments_;
  std::set<uint64_t> streams_;
};

}  // namespace
}  // namespace stoker::workers

int main() {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  stoker::workers::ScriptedWorker().Run();
}
