#!/usr/bin/env escript
-mode(compile).
%% What the BEAM does with names: an ETS table, and a gen_server sharded by 16.
%% usage: registry.escript FEW MANY. Each line "QUESTION... MILLISECONDS" on stdin is answered
%% with operations per second.
-behaviour(gen_server).
-export([init/1, handle_call/3, handle_cast/2]).

-define(SHARDS, 16).
%% Callers of the gen_servers: enough that none of the shards waits.
-define(CALLERS, 32).

main([FewText, ManyText]) ->
    [Few, Many] = [list_to_integer(Text) || Text <- [FewText, ManyText]],
    persistent_term:put(names, list_to_tuple([name(N) || N <- lists:seq(0, max(Few, Many) - 1)])),
    State = #{{few, 0} => table(Few, reads()), {few, 5} => table(Few, mixed()),
              {many, 0} => table(Many, reads()), {many, 5} => table(Many, mixed()),
              few => Few, many => Many, servers => servers(Few)},
    io:format("ready~n"),
    serve(State).

serve(State) ->
    case io:get_line("") of
        eof -> ok;
        Line ->
            io:format("~p~n", [answer(string:lexemes(Line, " \n"), State)]),
            serve(State)
    end.

answer(["ets", Size, Writes, Time], State) ->
    Key = {list_to_atom(Size), list_to_integer(Writes)},
    Table = maps:get(Key, State),
    Keys = maps:get(element(1, Key), State),
    measure(2, Time, fun(N) -> ets_step(Table, Keys, N, element(2, Key)) end);
answer(["insert", Time], #{many := Many}) ->
    Table = ets:new(names, [set, public | mixed()]),
    Rate = measure(2, Time, fun(N) -> inserts(Table, Many, N, 1000) end),
    ets:delete(Table),
    Rate;
answer(["server_lookup", Time], #{servers := Servers, few := Few}) ->
    measure(?CALLERS, Time, fun(N) -> calls(Servers, Few, N, 0, 100) end);
answer(["server_mixed", Time], #{servers := Servers, few := Few}) ->
    measure(?CALLERS, Time, fun(N) -> calls(Servers, Few, N, 5, 100) end);
answer(["server_register", Time], #{many := Many}) ->
    Servers = servers(0),
    Rate = measure(?CALLERS, Time, fun(N) -> registers(Servers, Many, N, 100) end),
    [gen_server:stop(Server) || Server <- tuple_to_list(Servers)],
    Rate.

%% Steps of as many processes until the time is over, per second together. A step answers where
%% it goes on and how many operations it was.
measure(Processes, TimeText, Step) ->
    Self = self(),
    Start = erlang:monotonic_time(microsecond),
    End = Start + list_to_integer(TimeText) * 1000,
    [spawn_link(fun() -> Self ! {done, run(Step, P * 7919, End, 0)} end) || P <- lists:seq(1, Processes)],
    Total = lists:sum([receive {done, Count} -> Count end || _ <- lists:seq(1, Processes)]),
    Total * 1000000 div (erlang:monotonic_time(microsecond) - Start).

run(Step, N, End, Count) ->
    case erlang:monotonic_time(microsecond) >= End of
        true -> Count;
        false ->
            {Next, Done} = Step(N),
            run(Step, Next, End, Count + Done)
    end.

reads() -> [{read_concurrency, true}].
mixed() -> [{read_concurrency, true}, {write_concurrency, true}].

table(Count, Options) ->
    Table = ets:new(names, [set, public | Options]),
    [ets:insert(Table, {pick(N), N}) || N <- lists:seq(0, Count - 1)],
    Table.

ets_step(Table, Keys, N, Writes) -> {ets_steps(Table, Keys, N, Writes, 1000), 1000}.

ets_steps(_, _, N, _, 0) -> N;
ets_steps(Table, Keys, N, Writes, Left) ->
    Next = next(N),
    Name = pick(Next rem Keys),
    case Left rem 100 < Writes of
        true -> ets:insert(Table, {Name, Left});
        false -> [_] = ets:lookup(Table, Name)
    end,
    ets_steps(Table, Keys, Next, Writes, Left - 1).

inserts(Table, Keys, N, Count) ->
    [ets:insert(Table, {pick((N + I) rem Keys), {<<"bench">>, worker, I}}) || I <- lists:seq(1, Count)],
    {N + Count, Count}.

servers(Names) ->
    Start = fun(_) -> {ok, Pid} = gen_server:start_link(?MODULE, [], []), Pid end,
    Servers = list_to_tuple([Start(Shard) || Shard <- lists:seq(1, ?SHARDS)]),
    [register_name(Servers, pick(N), N) || N <- lists:seq(0, Names - 1)],
    Servers.

calls(Servers, Keys, N, Writes, Count) -> {calls_left(Servers, Keys, N, Writes, Count), Count}.

calls_left(_, _, N, _, 0) -> N;
calls_left(Servers, Keys, N, Writes, Left) ->
    Next = next(N),
    Name = pick(Next rem Keys),
    case Left rem 100 < Writes of
        true -> register_name(Servers, Name, Left);
        false -> {ok, _} = gen_server:call(shard(Servers, Name), {lookup, Name})
    end,
    calls_left(Servers, Keys, Next, Writes, Left - 1).

registers(Servers, Keys, N, Count) ->
    [register_name(Servers, pick((N + I) rem Keys), I) || I <- lists:seq(1, Count)],
    {N + Count, Count}.

register_name(Servers, Name, Value) -> gen_server:call(shard(Servers, Name), {register, Name, Value}).

shard(Servers, Name) -> element(1 + erlang:phash2(Name, ?SHARDS), Servers).

init([]) -> {ok, #{}}.

handle_call({lookup, Name}, _From, Names) -> {reply, maps:find(Name, Names), Names};
handle_call({register, Name, Value}, _From, Names) -> {reply, ok, Names#{Name => Value}}.

handle_cast(_, Names) -> {noreply, Names}.

name(N) -> iolist_to_binary(io_lib:format("backend-~16.16.0b", [N])).

pick(N) -> element(1 + N, persistent_term:get(names)).

next(N) -> (N * 1103515245 + 12345) band 16#7fffffff.
