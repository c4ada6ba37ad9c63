package main

import (
	"encoding/json"
	"fmt"
	"os"

	lua "github.com/yuin/gopher-lua"
	luajson "layeh.com/gopher-json"
)

// call is a script and the object that it finds in its global variable obj.
type call struct {
	Script string
	Object any
}

// result is what a script returned, or why it failed.
type result struct {
	Value json.RawMessage `json:"value,omitempty"`
	Error string          `json:"error,omitempty"`
}

func runScripts() error {
	var calls []call
	if err := json.NewDecoder(os.Stdin).Decode(&calls); err != nil {
		return fmt.Errorf("read calls: %w", err)
	}
	results := make([]result, len(calls))
	for i, call := range calls {
		value, err := run(call)
		if results[i].Value = value; err != nil {
			results[i].Error = err.Error()
		}
	}
	return json.NewEncoder(os.Stdout).Encode(results)
}

func run(call call) (json.RawMessage, error) {
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	openLibraries(state)
	state.SetGlobal("obj", luajson.DecodeValue(state, call.Object))
	if err := state.DoString(call.Script); err != nil {
		return nil, err
	}
	return luajson.Encode(state.Get(-1))
}

// openLibraries opens what Argo CD does (util/lua/lua.go): the base library, table, and require("os") with two functions.
func openLibraries(state *lua.LState) {
	for name, open := range map[string]lua.LGFunction{
		lua.LoadLibName: lua.OpenPackage,
		lua.BaseLibName: lua.OpenBase,
		lua.TabLibName:  lua.OpenTable,
	} {
		state.Push(state.NewFunction(open))
		state.Push(lua.LString(name))
		state.Call(1, 0)
	}
	state.PreloadModule(lua.OsLibName, func(state *lua.LState) int {
		state.Push(state.SetFuncs(state.NewTable(), clock()))
		return 1
	})
}

// clock returns the functions of the os library that Argo CD leaves.
func clock() map[string]lua.LGFunction {
	open := lua.NewState()
	defer open.Close()
	library := open.GetGlobal(lua.OsLibName)
	functions := map[string]lua.LGFunction{}
	for _, name := range []string{"time", "date"} {
		functions[name] = open.GetField(library, name).(*lua.LFunction).GFunction
	}
	return functions
}
