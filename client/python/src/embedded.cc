// SPDX-License-Identifier: Apache-2.0
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "client/python/src/bindings.h"
#include "stoker/embedded_daemon.h"

namespace stoker::python {
namespace {

class PyEmbedded {
 public:
  explicit PyEmbedded(std::shared_ptr<EmbeddedDaemon> daemon) : daemon_(std::move(daemon)) {}
  PyEmbedded(PyEmbedded&&) = default;
  ~PyEmbedded() {
    if (daemon_.Here()) Stop();
  }
  EmbeddedDaemon& get() const { return *daemon_.get(); }
  int Stop() const {
    EmbeddedDaemon& daemon = get();
    const nb::gil_scoped_release release;
    return daemon.Stop();
  }

 private:
  OfThisProcess<std::shared_ptr<EmbeddedDaemon>> daemon_;
};

PyEmbedded Start(std::string program, std::string arena_bytes, std::string workers, std::string cache_dir,
                 std::vector<std::string> roots, std::vector<std::string> extra, double start_timeout) {
  EmbeddedDaemonOptions options;
  options.program = std::move(program);
  options.arena_bytes = std::move(arena_bytes);
  options.workers = std::move(workers);
  options.cache_dir = std::move(cache_dir);
  options.roots = std::move(roots);
  options.extra = std::move(extra);
  options.start_timeout = absl::Seconds(start_timeout);
  using Result = absl::StatusOr<std::shared_ptr<EmbeddedDaemon>>;
  return PyEmbedded(Value(Interruptible<Result>([options]() -> Result {
    absl::StatusOr<EmbeddedDaemon> daemon = EmbeddedDaemon::Start(options);
    if (!daemon.ok()) return daemon.status();
    return std::make_shared<EmbeddedDaemon>(*std::move(daemon));
  })));
}

}  // namespace

void BindEmbedded(nb::module_& module) {
  nb::class_<PyEmbedded>(module, "Embedded")
      .def_prop_ro("address", [](const PyEmbedded& daemon) { return Text(daemon.get().address()); })
      .def_prop_ro("directory", [](const PyEmbedded& daemon) { return Text(daemon.get().directory()); })
      .def_prop_ro("pid", [](const PyEmbedded& daemon) { return daemon.get().pid(); })
      .def_prop_ro("stderr_tail", [](const PyEmbedded& daemon) { return Text(daemon.get().stderr_tail()); })
      .def("stop", &PyEmbedded::Stop);
  module.def("start_embedded", Start);
}

}  // namespace stoker::python
