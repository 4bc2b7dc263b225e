package docker

// HideProcesses makes the engine look for processes in dir, where there are none.
func (e *Engine) HideProcesses(dir string) { e.proc = dir }
